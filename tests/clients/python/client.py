"""The Python client against the cluster of KUBECONFIG: typed and dynamic, in the namespace of the first argument."""

import sys

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException


def main(namespace):
    config.load_kube_config()
    core = client.CoreV1Api()
    core.create_namespace({"metadata": {"name": namespace}})

    def config_map(name, data):
        return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"a": "b"}), data=data)

    for n in range(5):
        core.create_namespaced_config_map(namespace, config_map(f"m{n}", {"n": str(n)}))
    try:
        core.create_namespaced_config_map(namespace, config_map("m0", {}))
        raise AssertionError("a second object of the name")
    except ApiException as error:
        assert error.status == 409 and '"reason":"AlreadyExists"' in error.body.replace(" ", ""), error.body

    page = core.list_namespaced_config_map(namespace, label_selector="a=b", limit=2)
    names = [item.metadata.name for item in page.items]
    while page.metadata._continue:
        page = core.list_namespaced_config_map(namespace, label_selector="a=b", limit=2, _continue=page.metadata._continue)
        names += [item.metadata.name for item in page.items]
    assert names == ["m0", "m1", "m2", "m3", "m4"], names

    patched = core.patch_namespaced_config_map("m0", namespace, {"data": {"patched": "yes"}})
    assert patched.data == {"n": "0", "patched": "yes"}, patched.data
    patched.data["replaced"] = "yes"
    replaced = core.replace_namespaced_config_map("m0", namespace, patched)
    try:
        core.replace_namespaced_config_map("m0", namespace, patched)
        raise AssertionError("an update of an older version")
    except ApiException as error:
        assert error.status == 409, error.body

    events = watch.Watch()
    core.delete_namespaced_config_map("m0", namespace)
    seen = []
    version = replaced.metadata.resource_version
    for event in events.stream(core.list_namespaced_config_map, namespace, resource_version=version, timeout_seconds=60):
        seen.append((event["type"], event["object"].metadata.name))
        events.stop()
    assert seen == [("DELETED", "m0")], seen

    dynamic_client = dynamic.DynamicClient(client.ApiClient())
    deployments = dynamic_client.resources.get(api_version="apps/v1", kind="Deployment")
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}
    applied = deployments.server_side_apply(body=body, name="web", namespace=namespace, field_manager="python")
    assert applied.metadata.managedFields[0].manager == "python", applied.metadata
    assert client.AppsV1Api().read_namespaced_deployment_scale("web", namespace).spec.replicas == 1

    core.delete_namespace(namespace)
    print(f"client {client.__name__}: ok")


main(sys.argv[1])
