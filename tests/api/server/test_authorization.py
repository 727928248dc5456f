"""Who may do what. Pure evaluators by tables; RBAC, nodes and escalation through the real server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pybernetes.api.types.core_v1 import (
    ConfigMap,
    Namespace,
    Node,
    Pod,
    Secret,
    Service,
    ServiceAccount,
)
from pybernetes.api.types.discovery_v1 import EndpointSlice
from pybernetes.api.types.meta_v1 import LabelSelector, ObjectMeta
from pybernetes.api.types.rbac_v1 import (
    AggregationRule,
    ClusterRole,
    ClusterRoleBinding,
    PolicyRule,
    Role,
    RoleBinding,
    RoleRef,
    Subject,
)
from pybernetes.api.user import UserInfo
from pybernetes.apimachinery.errors import Forbidden, NotFound
from pybernetes.apiserver.authz.rules import Grants, compacted, missing, rule_text
from pybernetes.apiserver.bootstrap.policy import default_cluster_role_bindings
from pybernetes.apiserver.bootstrap.reconcile import reconciled_binding, reconciled_role
from pybernetes.apiserver.bootstrap.rule import can, can_get
from pybernetes.apiserver.hooks import Access
from pybernetes.storage.memory import MemoryStore
from pybernetes.testing import builders
from tests.api.server.access import ask, node_user, running, user

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from pybernetes.aio.clock import Clock
    from pybernetes.client import Client
    from pybernetes.cluster.controlplane import ControlPlane

RBAC = "rbac.authorization.k8s.io"


@pytest.fixture
async def plane(clock: Clock, random: Random) -> AsyncIterator[ControlPlane]:
    async with running(clock, random) as plane:
        yield plane


def wish(verb: str, what: str, *, group: str = "", name: str = "", namespace: str = "ns") -> Access:
    jane = UserInfo("jane")
    if what.startswith("/"):
        return Access(jane, verb, False, path=what)
    resource, _, subresource = what.partition("/")
    return Access(
        jane,
        verb,
        namespace=namespace,
        group=group,
        resource=resource,
        subresource=subresource,
        name=name,
    )


# --- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "access", "allowed"),
    [
        pytest.param(can("get", "pods"), wish("get", "pods"), True, id="exact"),
        pytest.param(can("get", "pods"), wish("list", "pods"), False, id="another verb"),
        pytest.param(can("get", "pods"), wish("get", "services"), False, id="another resource"),
        pytest.param(
            can("get", "pods"), wish("get", "pods", group="apps"), False, id="another group"
        ),
        pytest.param(can("get", "pods"), wish("get", "pods/log"), False, id="not subresources"),
        pytest.param(can("get", "pods/log"), wish("get", "pods/log"), True, id="a subresource"),
        pytest.param(can("get", "pods/log"), wish("get", "pods"), False, id="only that"),
        pytest.param(can("*", "*", group="*"), wish("x", "pods/log", group="g"), True, id="all"),
        pytest.param(
            can("get", "*/scale", group="*"), wish("get", "a/scale"), True, id="any scale"
        ),
        pytest.param(
            can("get", "*/scale", group="*"), wish("get", "a/status"), False, id="no more"
        ),
        pytest.param(
            can("get", "pods", names="a b"), wish("get", "pods", name="b"), True, id="name"
        ),
        pytest.param(
            can("get", "pods", names="a"), wish("get", "pods", name="c"), False, id="other"
        ),
        pytest.param(can("get", "pods", names="a"), wish("list", "pods"), False, id="no name"),
        pytest.param(can("create", "pods", names="a"), wish("create", "pods"), False, id="create"),
        pytest.param(can_get("/healthz"), wish("get", "/healthz"), True, id="path"),
        pytest.param(can_get("/healthz"), wish("get", "/healthz/x"), False, id="not below"),
        pytest.param(can_get("/healthz/*"), wish("get", "/healthz/x"), True, id="below"),
        pytest.param(can_get("/healthz"), wish("post", "/healthz"), False, id="path, other verb"),
        pytest.param(can_get("*"), wish("get", "/any"), True, id="any path"),
        pytest.param(
            can("*", "*", group="*"), wish("get", "/any"), False, id="resources are no paths"
        ),
    ],
)
def test_rules_match(rule: PolicyRule, access: Access, allowed: bool) -> None:
    assert Grants((rule,)).allows(access) is allowed


@pytest.mark.parametrize(
    ("owned", "wanted", "lacking"),
    [
        pytest.param([can("*", "*", group="*")], [can("get list", "pods")], [], id="everything"),
        pytest.param([can("get", "pods")], [can("get", "pods")], [], id="the same"),
        pytest.param(
            [can("get", "pods")], [can("get list", "pods")], [can("list", "pods")], id="one verb"
        ),
        pytest.param(
            [can("get", "pods"), can("get", "services")],
            [can("get", "pods services")],
            [],
            id="two rules together",
        ),
        pytest.param(
            [can("get", "pods", names="a")], [can("get", "pods")], [can("get", "pods")], id="named"
        ),
        pytest.param([can("get", "pods")], [can("get", "pods", names="a")], [], id="narrower"),
        pytest.param([can("get", "*/scale")], [can("get", "a/scale")], [], id="subresources"),
        pytest.param([can_get("/a/*")], [can_get("/a/b")], [], id="paths"),
        pytest.param([can_get("/a")], [can_get("/a/b")], [can_get("/a/b")], id="path below"),
    ],
)
def test_what_is_missing(
    owned: list[PolicyRule], wanted: list[PolicyRule], lacking: list[PolicyRule]
) -> None:
    assert missing(owned, wanted) == lacking


# --- rules, against a plain reading of what they mean ---------------------------------------------

some_words = st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=2).map(tuple)
some_resources = st.lists(
    st.sampled_from(["pods", "nodes", "pods/log", "pods/scale", "*/scale", "*"]),
    min_size=1,
    max_size=2,
).map(tuple)
some_paths = st.lists(st.sampled_from(["/a", "/a/*", "/a/b", "*"]), min_size=1).map(tuple)
some_rules = st.one_of(
    st.builds(
        PolicyRule,
        verbs=some_words,
        api_groups=some_words,
        resources=some_resources,
        resource_names=st.lists(st.sampled_from(["x", "y"]), max_size=2).map(tuple),
    ),
    st.builds(PolicyRule, verbs=some_words, non_resource_urls=some_paths),
)
some_wishes = st.one_of(
    st.builds(
        Access,
        user=st.just(UserInfo("u")),
        verb=st.sampled_from(["a", "b"]),
        group=st.sampled_from(["a", "b"]),
        resource=st.sampled_from(["pods", "nodes"]),
        subresource=st.sampled_from(["", "log", "scale"]),
        name=st.sampled_from(["", "x", "z"]),
    ),
    st.builds(
        Access,
        user=st.just(UserInfo("u")),
        verb=st.sampled_from(["a", "b"]),
        is_resource=st.just(False),
        path=st.sampled_from(["/a", "/a/", "/a/b", "/c"]),
    ),
)


def plainly_allows(rule: PolicyRule, access: Access) -> bool:
    if "*" not in rule.verbs and access.verb not in rule.verbs:
        return False
    if not access.is_resource:
        return any(
            url == access.path or (url.endswith("*") and access.path.startswith(url.rstrip("*")))
            for url in rule.non_resource_urls
        )
    if "*" not in rule.api_groups and access.group not in rule.api_groups:
        return False
    wanted = access.resource + (f"/{access.subresource}" if access.subresource else "")
    any_of_these = f"*/{access.subresource}" if access.subresource else ""
    if not any(known in ("*", wanted, any_of_these) for known in rule.resources):
        return False
    return not rule.resource_names or access.name in rule.resource_names


@given(rules=st.lists(some_rules, max_size=4), access=some_wishes)
def test_looking_up_is_searching(rules: list[PolicyRule], access: Access) -> None:
    assert Grants(rules).allows(access) is any(plainly_allows(rule, access) for rule in rules)


@given(owned=st.lists(some_rules, max_size=3), wanted=some_rules, access=some_wishes)
def test_what_is_granted_was_held(
    owned: list[PolicyRule], wanted: PolicyRule, access: Access
) -> None:
    """Whoever passes the check for escalation gives nobody more than they have themselves."""
    if not missing(owned, [wanted]) and Grants((wanted,)).allows(access):
        assert Grants(owned).allows(access)


def test_rules_are_told_as_upstream_does() -> None:
    [rule] = compacted([can("get", "pods", names="x"), can("list", "pods", names="x")])
    assert rule_text(rule) == (
        '{APIGroups:[""], Resources:["pods"], ResourceNames:["x"], Verbs:["get" "list"]}'
    )


# --- RBAC through the server ----------------------------------------------------------------------


async def bind(
    plane: ControlPlane,
    role: str,
    subject: Subject,
    *,
    kind: str = "ClusterRole",
    namespace: str = "",
) -> None:
    metadata = ObjectMeta(generate_name="test-", namespace=namespace)
    reference = RoleRef(kind=kind, name=role)
    if namespace:
        await plane.admin.create(
            RoleBinding(metadata=metadata, role_ref=reference, subjects=(subject,))
        )
    else:
        await plane.admin.create(
            ClusterRoleBinding(metadata=metadata, role_ref=reference, subjects=(subject,))
        )


DEV = Subject(kind="Group", name="dev")


async def test_refusals_are_upstreams(plane: ControlPlane) -> None:
    jane = user(plane, "jane", "dev")
    with pytest.raises(Forbidden) as refused:
        await jane.list(Pod, "default")
    assert refused.value.message == (
        'pods is forbidden: User "jane" cannot list resource "pods" in API group "" '
        'in the namespace "default"'
    )
    with pytest.raises(Forbidden) as refused:
        await jane.get(Node, "n1")
    assert refused.value.message == (
        'nodes "n1" is forbidden: User "jane" cannot get resource "nodes" in API group "" '
        "at the cluster scope"
    )
    status, answer = await ask(plane, "GET", "/metrics", identity=UserInfo("jane"))
    assert (status, answer["message"]) == (
        403,
        'forbidden: User "jane" cannot get path "/metrics"',
    )


async def test_a_binding_counts_at_once_and_no_longer(plane: ControlPlane) -> None:
    jane = user(plane, "jane", "dev")
    await bind(plane, "view", DEV, namespace="default")
    await jane.list(Pod, "default")
    with pytest.raises(Forbidden):
        await jane.list(Pod, "kube-system")
    with pytest.raises(Forbidden):
        await jane.list(Secret, "default")
    [binding] = (await plane.admin.list(RoleBinding, "default")).items
    await plane.admin.delete(binding)
    with pytest.raises(Forbidden):
        await jane.list(Pod, "default")


async def test_a_role_counts_as_it_is_now(plane: ControlPlane) -> None:
    jane = user(plane, "jane", "dev")
    role = Role(metadata=ObjectMeta(name="r", namespace="default"), rules=(can("list", "pods"),))
    await plane.admin.create(role)
    await bind(plane, "r", Subject(kind="User", name="jane"), kind="Role", namespace="default")
    await jane.list(Pod, "default")
    present = await plane.admin.get(Role, "r", "default")
    await plane.admin.update(replace(present, rules=(can("list", "secrets"),)))
    await jane.list(Secret, "default")
    with pytest.raises(Forbidden):
        await jane.list(Pod, "default")


async def test_a_missing_role_is_named(plane: ControlPlane) -> None:
    await bind(plane, "gone", DEV)
    with pytest.raises(
        Forbidden, match=r': RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found'
    ):
        await user(plane, "jane", "dev").list(Pod, "default")


async def test_service_accounts_are_subjects(plane: ControlPlane) -> None:
    robot = user(plane, "system:serviceaccount:default:robot")
    subject = Subject(kind="ServiceAccount", name="robot", namespace="default")
    await bind(plane, "view", subject)
    await robot.list(Pod, "kube-system")


async def test_admin_edit_and_view_gather_rules(plane: ControlPlane) -> None:
    roles = {role.metadata.name: role for role in (await plane.admin.list(ClusterRole)).items}
    admin, edit, view = roles["admin"].rules, roles["edit"].rules, roles["view"].rules
    assert set(view) < set(edit) < set(admin)
    assert roles["admin"].aggregation_rule is not None


async def test_components_may_do_their_work(plane: ControlPlane) -> None:
    scheduler = user(plane, "system:kube-scheduler")
    await scheduler.list(Pod)
    await scheduler.list(Node)
    with pytest.raises(Forbidden):
        await scheduler.list(Secret)
    manager = user(plane, "system:kube-controller-manager")
    await manager.list(Secret)
    proxy = user(plane, "system:kube-proxy")
    await proxy.list(Node)


# --- granting -------------------------------------------------------------------------------------


async def manager_of_roles(plane: ControlPlane, *more: PolicyRule) -> Client:
    role = ClusterRole(
        metadata=ObjectMeta(name="manager"),
        rules=(
            can("*", "roles rolebindings clusterroles clusterrolebindings", group=RBAC),
            *more,
        ),
    )
    bare = ClusterRole(metadata=role.metadata, rules=role.rules)
    # `*` would include escalate and bind.
    verbs = ("create", "update", "get", "list", "delete", "patch")
    rules = (replace(bare.rules[0], verbs=verbs), *bare.rules[1:])
    await plane.admin.create(replace(bare, rules=rules))
    await bind(plane, "manager", Subject(kind="User", name="mo"))
    return user(plane, "mo", "team")


async def test_nobody_grants_what_they_do_not_have(plane: ControlPlane) -> None:
    mo = await manager_of_roles(plane, can("get", "pods"))
    new = Role(
        metadata=ObjectMeta(name="r", namespace="default"),
        rules=(can("get list watch", "pods"), can("get", "secrets")),
    )
    with pytest.raises(Forbidden) as refused:
        await mo.create(new)
    assert refused.value.message == (
        'roles.rbac.authorization.k8s.io "r" is forbidden: user "mo" (groups=["team"'
        ' "system:authenticated"]) is attempting to grant RBAC permissions not currently held:\n'
        '{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}'
    )
    made = await mo.create(replace(new, rules=(can("get", "pods"),)))
    labels = {"still": "mine"}
    await mo.update(replace(made, metadata=replace(made.metadata, labels=labels)))


async def test_labels_grant_too(plane: ControlPlane) -> None:
    """A role gathered into another by its labels gives its rules to whoever has that one."""
    mo = await manager_of_roles(plane)
    strong = await plane.admin.get(ClusterRole, "cluster-admin")
    labels = {**strong.metadata.labels, "rbac.authorization.k8s.io/aggregate-to-view": "true"}
    with pytest.raises(Forbidden, match="attempting to grant RBAC permissions"):
        await mo.update(replace(strong, metadata=replace(strong.metadata, labels=labels)))
    owned = replace(strong.metadata, finalizers=("example.com/mine",))
    await mo.update(replace(strong, metadata=owned))


async def test_nobody_binds_what_they_do_not_have(plane: ControlPlane) -> None:
    mo = await manager_of_roles(plane, can("get", "pods"))
    binding = RoleBinding(
        metadata=ObjectMeta(name="b", namespace="default"),
        role_ref=RoleRef(kind="ClusterRole", name="cluster-admin"),
        subjects=(Subject(kind="User", name="mo"),),
    )
    with pytest.raises(Forbidden, match="attempting to grant RBAC permissions"):
        await mo.create(binding)
    gone = replace(binding, role_ref=RoleRef(kind="ClusterRole", name="gone"))
    with pytest.raises(NotFound, match=r'clusterroles.rbac.authorization.k8s.io "gone" not found'):
        await mo.create(gone)


async def test_escalate_and_bind_lift_the_limit(plane: ControlPlane) -> None:
    mo = await manager_of_roles(
        plane,
        PolicyRule(
            verbs=("escalate", "bind"), api_groups=(RBAC,), resources=("roles", "clusterroles")
        ),
    )
    role = Role(metadata=ObjectMeta(name="r", namespace="default"), rules=(can("*", "secrets"),))
    await mo.create(role)
    reference = RoleRef(kind="ClusterRole", name="cluster-admin")
    metadata = ObjectMeta(name="b", namespace="default")
    await mo.create(RoleBinding(metadata=metadata, role_ref=reference))


async def test_gathering_rules_needs_everything(plane: ControlPlane) -> None:
    mo = await manager_of_roles(plane)
    selector = LabelSelector(match_labels={"a": "b"})
    role = ClusterRole(
        metadata=ObjectMeta(name="r"),
        aggregation_rule=AggregationRule(cluster_role_selectors=(selector,)),
    )
    with pytest.raises(Forbidden, match="must have cluster-admin privileges to use the aggreg"):
        await mo.create(role)


# --- being somebody else --------------------------------------------------------------------------


async def test_impersonation_needs_permission(plane: ControlPlane) -> None:
    headers = [("Impersonate-User", "jane"), ("Impersonate-Group", "dev")]
    path = "/api/v1/namespaces/default/pods"
    status, answer = await ask(plane, "GET", path, headers=headers, identity=UserInfo("bob"))
    assert status == 403
    assert answer["message"] == (
        'users "jane" is forbidden: User "bob" cannot impersonate resource "users" in API group'
        ' "" at the cluster scope'
    )
    root = UserInfo("root", ("system:masters",))
    status, answer = await ask(plane, "GET", path, headers=headers, identity=root)
    assert status == 403
    assert answer["message"].startswith('pods is forbidden: User "jane" cannot list')
    await bind(plane, "view", DEV, namespace="default")
    status, _ = await ask(plane, "GET", path, headers=headers, identity=root)
    assert status == 200


# --- nodes ----------------------------------------------------------------------------------------


@pytest.fixture
async def two_nodes(plane: ControlPlane) -> ControlPlane:
    for name in ("n1", "n2"):
        await plane.admin.create(builders.node(name))
    for name in ("mine", "other"):
        await plane.admin.create(builders.secret(name))
        await plane.admin.create(builders.config_map(name))
    await plane.admin.create(_pod_with_references("web", "n1", "mine"))
    await plane.admin.create(_pod_with_references("elsewhere", "n2", "other"))
    return plane


def _pod_with_references(name: str, node: str, refers_to: str) -> Pod:
    from pybernetes.api.types.core_v1 import (
        ConfigMapVolumeSource,
        SecretVolumeSource,
        Volume,
    )

    pod = builders.pod(name, node=node)
    volumes = (
        Volume(name="s", secret=SecretVolumeSource(secret_name=refers_to)),
        Volume(name="c", config_map=ConfigMapVolumeSource(name=refers_to)),
    )
    return replace(pod, spec=replace(pod.spec, volumes=volumes))


async def test_a_node_reads_what_its_pods_need(two_nodes: ControlPlane) -> None:
    node = node_user(two_nodes, "n1")
    await node.get(Secret, "mine", "default")
    await node.get(ConfigMap, "mine", "default")
    await node.list(ConfigMap, "default", field_selector="metadata.name=mine")
    with pytest.raises(Forbidden, match="no relationship found between node 'n1' and this object"):
        await node.get(Secret, "other", "default")
    with pytest.raises(Forbidden):
        await node.list(Secret, "default")
    await two_nodes.admin.delete(Pod, "web", "default", grace_seconds=0)
    with pytest.raises(Forbidden):
        await node.get(Secret, "mine", "default")


async def test_a_node_sees_its_own_pods_and_itself(two_nodes: ControlPlane) -> None:
    node = node_user(two_nodes, "n1")
    found = await node.list(Pod, field_selector="spec.nodeName=n1")
    assert [pod.metadata.name for pod in found.items] == ["web"]
    with pytest.raises(Forbidden, match=r"can only list/watch pods with spec.nodeName"):
        await node.list(Pod)
    await node.get(Pod, "web", "default")
    with pytest.raises(Forbidden):
        await node.get(Pod, "elsewhere", "default")
    await node.get(Node, "n1")
    with pytest.raises(Forbidden, match="only its own Node object"):
        await node.get(Node, "n2")
    with pytest.raises(Forbidden):
        await node.list(ServiceAccount)


async def test_a_node_agent_sees_what_its_network_follows(two_nodes: ControlPlane) -> None:
    node = node_user(two_nodes, "n1")
    for kind in (Node, Service, EndpointSlice, Namespace):
        await node.list(kind)


async def test_a_node_writes_only_what_is_its_own(two_nodes: ControlPlane) -> None:
    admin, node = two_nodes.admin, node_user(two_nodes, "n1")
    mine = await node.get(Pod, "web", "default")
    await node.update_status(replace(mine, status=replace(mine.status, message="here")))
    other = await admin.get(Pod, "elsewhere", "default")
    with pytest.raises(Forbidden, match=r"can only update pod status for pods with spec.nodeName"):
        await node.update_status(other)
    with pytest.raises(Forbidden, match="can only create mirror pods"):
        await node.create(builders.pod("new", node="n1"))
    with pytest.raises(Forbidden, match='is not allowed to modify node "n2"'):
        await node.update(await admin.get(Node, "n2"))
    itself = await node.get(Node, "n1")
    tainted = replace(itself, spec=replace(itself.spec, taints=(builders.taint("k"),)))
    with pytest.raises(Forbidden, match="is not allowed to modify taints"):
        await node.update(tainted)
    labels = {**itself.metadata.labels, "node-restriction.kubernetes.io/a": "b"}
    labelled = replace(itself, metadata=replace(itself.metadata, labels=labels))
    with pytest.raises(Forbidden, match="is not allowed to modify labels: node-restriction"):
        await node.update(labelled)
    allowed = {**itself.metadata.labels, "topology.kubernetes.io/zone": "a", "mine": "too"}
    await node.update(replace(itself, metadata=replace(itself.metadata, labels=allowed)))


async def test_a_mirror_pod_refers_to_nothing(two_nodes: ControlPlane) -> None:
    node = node_user(two_nodes, "n1")
    mirror = _pod_with_references("static", "n1", "other")
    annotations = {"kubernetes.io/config.mirror": "hash"}
    mirror = replace(mirror, metadata=replace(mirror.metadata, annotations=annotations))
    with pytest.raises(Forbidden, match="secrets"):
        await node.create(mirror)
    plain = builders.pod("static", node="n1")
    await node.create(replace(plain, metadata=replace(plain.metadata, annotations=annotations)))


async def test_a_node_gets_tokens_for_its_own_pods(two_nodes: ControlPlane) -> None:
    from pybernetes.api.types.authentication_v1 import (
        BoundObjectReference,
        TokenRequest,
        TokenRequestSpec,
    )

    node = node_user(two_nodes, "n1")

    async def request(name: str) -> Any:
        pod = await two_nodes.admin.get(Pod, name, "default")
        reference = BoundObjectReference(
            kind="Pod", api_version="v1", name=name, uid=pod.metadata.uid
        )
        body = TokenRequest(spec=TokenRequestSpec(bound_object_ref=reference))
        return await node.create_subresource(ServiceAccount, "default", "default", "token", body)

    assert (await request("web")).status.token
    with pytest.raises(Forbidden, match="pod scheduled on a different node"):
        await request("elsewhere")
    with pytest.raises(Forbidden, match="not bound to a pod"):
        await node.create_subresource(ServiceAccount, "default", "default", "token", TokenRequest())


# --- the default policy ---------------------------------------------------------------------------


async def test_a_second_start_writes_nothing(clock: Clock, random: Random) -> None:
    store = MemoryStore()
    async with running(clock, random, store):
        pass
    revision = store.revision
    async with running(clock, random, store):
        assert store.revision == revision


async def test_what_is_missing_is_put_back(clock: Clock, random: Random) -> None:
    store = MemoryStore()
    async with running(clock, random, store) as plane:
        role = await plane.admin.get(ClusterRole, "system:kube-scheduler")
        await plane.admin.update(replace(role, rules=(can("get", "mine"),)))
        protected = await plane.admin.get(ClusterRole, "system:kube-dns")
        metadata = replace(
            protected.metadata, annotations={"rbac.authorization.kubernetes.io/autoupdate": "false"}
        )
        await plane.admin.update(replace(protected, metadata=metadata, rules=()))
        await plane.admin.delete(ClusterRoleBinding, "cluster-admin")
    async with running(clock, random, store) as plane:
        rules = (await plane.admin.get(ClusterRole, "system:kube-scheduler")).rules
        assert rules[0] == can("get", "mine")
        assert not missing(rules, role.rules)
        assert (await plane.admin.get(ClusterRole, "system:kube-dns")).rules == ()
        await plane.admin.get(ClusterRoleBinding, "cluster-admin")


def test_added_subjects_stay() -> None:
    wanted = next(b for b in default_cluster_role_bindings() if b.metadata.name == "cluster-admin")
    more = Subject(kind="User", api_group=RBAC, name="boss")
    stored = replace(wanted, subjects=(*wanted.subjects, more))
    assert reconciled_binding(stored, wanted) is None
    fewer = replace(wanted, subjects=(more,))
    mended = reconciled_binding(fewer, wanted)
    assert mended is not None
    assert mended.subjects == (more, *wanted.subjects)


def test_added_rules_stay() -> None:
    wanted = ClusterRole(metadata=ObjectMeta(name="r"), rules=(can("get", "pods"),))
    wider = replace(wanted, rules=(can("*", "*"),))
    assert reconciled_role(wider, wanted) is None
