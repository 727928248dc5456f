"""PodSecurity: what the labels of a namespace let pods do to the machine they run on.

`checks` are the rules of the Pod Security Standards, one function each; `plugin` applies them by
the labels `pod-security.kubernetes.io/{enforce,warn,audit}`.
"""
