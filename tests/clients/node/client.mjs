// The Node.js client against the cluster of KUBECONFIG, in the namespace of the first argument.

import assert from "node:assert";

import * as k8s from "@kubernetes/client-node";

const namespace = process.argv[2];
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);

await core.createNamespace({ body: { metadata: { name: namespace } } });
const map = (name) => ({ metadata: { name, labels: { a: "b" } }, data: { k: "v" } });
for (const name of ["a", "b", "c"]) {
  await core.createNamespacedConfigMap({ namespace, body: map(name) });
}
await assert.rejects(core.createNamespacedConfigMap({ namespace, body: map("a") }), (error) => error.code === 409);

const names = [];
let page = {};
do {
  const next = page.metadata?._continue;
  page = await core.listNamespacedConfigMap({ namespace, labelSelector: "a=b", limit: 2, _continue: next });
  names.push(...page.items.map((item) => item.metadata.name));
} while (page.metadata._continue);
assert.deepStrictEqual(names, ["a", "b", "c"]);

// An informer: it lists, watches, and sees a change and a deletion.
const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: "a=b" });
const path = `/api/v1/namespaces/${namespace}/configmaps`;
const informer = k8s.makeInformer(config, path, list, "a=b");
const seen = (event, check) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${event}`)), 60_000);
    informer.on(event, (object) => {
      if (check(object)) {
        clearTimeout(timer);
        resolve(object);
      }
    });
  });
const added = seen("add", (object) => object.metadata.name === "c");
await informer.start();
await added;
const changed = seen("update", (object) => object.metadata.name === "a" && object.data.k === "w");
const patch = [{ op: "replace", path: "/data/k", value: "w" }];
await core.patchNamespacedConfigMap(
  { name: "a", namespace, body: patch },
  k8s.setHeaderOptions("Content-Type", k8s.PatchStrategy.JsonPatch),
);
await changed;
const deleted = seen("delete", (object) => object.metadata.name === "b");
await core.deleteNamespacedConfigMap({ name: "b", namespace });
await deleted;
await informer.stop();

// Objects of any kind, server-side apply among them.
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const service = { apiVersion: "v1", kind: "Service", metadata: { name: "s", namespace }, spec: { ports: [{ port: 80 }] } };
const applied = await objects.patch(service, undefined, undefined, "node", true, k8s.PatchStrategy.ServerSideApply);
assert.strictEqual(applied.metadata.managedFields[0].manager, "node");
assert.match(applied.spec.clusterIP, /^10\./);

await core.deleteNamespace({ name: namespace });
console.log("client-node: ok");
process.exit(0);
