"""The image of the container that holds a pod's namespaces, made on the spot.

Its one file is a static program of a few hundred bytes, assembled here for the machine at hand, so
that no registry is needed to run a pod. As process 1 of a pod that shares its process namespace it
inherits orphans; its whole life is: block SIGINT, SIGTERM and SIGCHLD, then wait for one of them;
on SIGCHLD collect every child that has ended, on the others exit with 0.

Blocking matters: for process 1 the kernel drops signals that have no handler, but keeps those that
are blocked for whoever waits for them.
"""

from __future__ import annotations

import platform
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pybernetes.kubelet.runtime.ociimage import (
    ARCHITECTURES,
    Directory,
    File,
    Image,
    ImageConfig,
    build_image,
    layer,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Changes whenever the content does, so that an old one is never taken for a new one.
PAUSE_IMAGE_NAME = "localhost/pybernetes/pause:1"
PROGRAM_PATH = "/pause"

# Bit n-1 for signal n: SIGINT 2, SIGTERM 15, SIGCHLD 17.
_SIGNALS = struct.pack("<Q", 1 << 1 | 1 << 14 | 1 << 16)

_HEADER_SIZE = 64 + 56
_LOAD_ADDRESS = 0x400000


def pause_program(machine: str = "") -> bytes:
    """The program as an ELF file. Raises ValueError for a machine we have no code for."""
    machine = machine or platform.machine()
    match machine:
        case "x86_64":
            return _elf(62, _assemble(_x86_64_parts()))
        case "aarch64":
            return _elf(183, _assemble(_aarch64_parts()))
    raise ValueError(
        f"no pause program for {machine}: only x86_64 and aarch64 are known; "
        "name an image with --pause-image"
    )


def pause_image(machine: str = "") -> Image:
    machine = machine or platform.machine()
    content = layer(
        {
            PROGRAM_PATH: File(pause_program(machine), mode=0o755),
            # Runtimes mount over these; with them there, a read-only root works too.
            "/dev": Directory(),
            "/etc": Directory(),
            "/proc": Directory(),
            "/sys": Directory(),
        }
    )
    config = ImageConfig(entrypoint=(PROGRAM_PATH,), user="65535:65535")
    return build_image([content], config, architecture=ARCHITECTURES[machine])


def _elf(machine: int, code: bytes) -> bytes:
    """A static 64-bit little-endian executable of one read-only, executable segment."""
    size = _HEADER_SIZE + len(code)
    identification = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        identification,
        2,  # an executable
        machine,
        1,  # version
        _LOAD_ADDRESS + _HEADER_SIZE,  # entry
        64,  # program headers
        0,  # no section headers
        0,  # flags
        64,  # size of this header
        56,  # size of a program header
        1,  # one of them
        0,
        0,
        0,
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, size, size, 0x10000)
    return header + segment + code


# A program is a list of parts: a str is a label, bytes stand for themselves, and `Reference` is an
# instruction that names a label.
@dataclass(frozen=True, slots=True)
class Reference:
    label: str
    size: int
    encode: Callable[[int], bytes]
    """The instruction's bytes, given the distance from its start to the label."""


Part = str | bytes | Reference


def _assemble(parts: Sequence[Part]) -> bytes:
    offsets: dict[str, int] = {}
    position = 0
    for part in parts:
        if isinstance(part, str):
            offsets[part] = position
        else:
            position += len(part) if isinstance(part, bytes) else part.size
    code = b""
    for part in parts:
        if isinstance(part, bytes):
            code += part
        elif isinstance(part, Reference):
            code += part.encode(offsets[part.label] - len(code))
    return code


def _x86_64_parts() -> list[Part]:
    def jump(opcode: int, label: str) -> Reference:
        return Reference(label, 2, lambda distance: struct.pack("<Bb", opcode, distance - 2))

    def address(opcode: bytes, label: str) -> Reference:
        return Reference(label, 7, lambda distance: opcode + struct.pack("<i", distance - 7))

    return [
        b"\xb8\x0e\x00\x00\x00",  # mov eax, 14          rt_sigprocmask
        b"\x31\xff",  # xor edi, edi                      SIG_BLOCK
        address(b"\x48\x8d\x35", "signals"),  # lea rsi, [rip+signals]
        b"\x31\xd2",  # xor edx, edx
        b"\x41\xba\x08\x00\x00\x00",  # mov r10d, 8      size of the set
        b"\x0f\x05",  # syscall
        "wait",
        b"\xb8\x80\x00\x00\x00",  # mov eax, 128         rt_sigtimedwait
        address(b"\x48\x8d\x3d", "signals"),  # lea rdi, [rip+signals]
        b"\x31\xf6",  # xor esi, esi
        b"\x31\xd2",  # xor edx, edx
        b"\x41\xba\x08\x00\x00\x00",  # mov r10d, 8
        b"\x0f\x05",  # syscall
        b"\x83\xf8\x11",  # cmp eax, SIGCHLD
        jump(0x74, "reap"),
        b"\x83\xf8\x02",  # cmp eax, SIGINT
        jump(0x74, "exit"),
        b"\x83\xf8\x0f",  # cmp eax, SIGTERM
        jump(0x74, "exit"),
        jump(0xEB, "wait"),
        "reap",
        b"\xb8\x3d\x00\x00\x00",  # mov eax, 61          wait4
        b"\xbf\xff\xff\xff\xff",  # mov edi, -1          any child
        b"\x31\xf6",  # xor esi, esi
        b"\xba\x01\x00\x00\x00",  # mov edx, WNOHANG
        b"\x45\x31\xd2",  # xor r10d, r10d
        b"\x0f\x05",  # syscall
        b"\x85\xc0",  # test eax, eax
        jump(0x7F, "reap"),  # greater: a child was collected, there may be more
        jump(0xEB, "wait"),
        "exit",
        b"\xb8\x3c\x00\x00\x00",  # mov eax, 60          exit
        b"\x31\xff",  # xor edi, edi
        b"\x0f\x05",  # syscall
        "signals",
        _SIGNALS,
    ]


def _aarch64_parts() -> list[Part]:
    equal, greater = 0, 12

    def word(instruction: int) -> bytes:
        return struct.pack("<I", instruction)

    def move(register: int, value: int) -> bytes:
        return word(0xD2800000 | value << 5 | register)

    def compare(value: int) -> bytes:
        return word(0x7100001F | value << 10)

    def address(register: int, label: str) -> Reference:
        def encode(distance: int) -> bytes:
            return word(0x10000000 | (distance & 3) << 29 | distance >> 2 << 5 | register)

        return Reference(label, 4, encode)

    def jump(label: str) -> Reference:
        return Reference(label, 4, lambda distance: word(0x14000000 | distance >> 2 & 0x3FFFFFF))

    def jump_if(condition: int, label: str) -> Reference:
        def encode(distance: int) -> bytes:
            return word(0x54000000 | (distance >> 2 & 0x7FFFF) << 5 | condition)

        return Reference(label, 4, encode)

    def call(number: int) -> bytes:
        return move(8, number) + word(0xD4000001)

    return [
        move(0, 0),  # SIG_BLOCK
        address(1, "signals"),
        move(2, 0),
        move(3, 8),  # size of the set
        call(135),  # rt_sigprocmask
        "wait",
        address(0, "signals"),
        move(1, 0),
        move(2, 0),
        move(3, 8),
        call(137),  # rt_sigtimedwait
        compare(17),
        jump_if(equal, "reap"),
        compare(2),
        jump_if(equal, "exit"),
        compare(15),
        jump_if(equal, "exit"),
        jump("wait"),
        "reap",
        word(0x92800000),  # mov x0, -1: any child
        move(1, 0),
        move(2, 1),  # WNOHANG
        move(3, 0),
        call(260),  # wait4
        compare(0),
        jump_if(greater, "reap"),
        jump("wait"),
        "exit",
        move(0, 0),
        call(93),  # exit
        "signals",
        _SIGNALS,
    ]
