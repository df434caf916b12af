// client-go against the cluster of KUBECONFIG, in the namespace of the first argument: protobuf, informers, pages,
// patches, apply, conflicts, and a custom resource through the dynamic client.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func require(holds bool, what string, facts ...any) {
	if !holds {
		panic(fmt.Sprint(what, ": ", fmt.Sprint(facts...)))
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	namespace := os.Args[1]
	config := must(clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG")))
	binary := rest.CopyConfig(config)
	binary.ContentType = "application/vnd.kubernetes.protobuf"
	binary.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	for form, config := range map[string]*rest.Config{"json": config, "protobuf": binary} {
		typed(ctx, kubernetes.NewForConfigOrDie(config), namespace+"-"+form)
	}
	custom(ctx, config)
	fmt.Println("client-go: ok")
}

func typed(ctx context.Context, client *kubernetes.Clientset, namespace string) {
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	must(client.CoreV1().Namespaces().Create(ctx, object, metav1.CreateOptions{}))
	maps := client.CoreV1().ConfigMaps(namespace)

	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	informer := factory.Core().V1().ConfigMaps().Informer()
	changes := make(chan string, 1000)
	must(informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { changes <- "added " + o.(*corev1.ConfigMap).Name },
		UpdateFunc: func(_, o any) { changes <- "updated " + o.(*corev1.ConfigMap).Name },
		DeleteFunc: func(o any) {
			if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			changes <- "deleted " + o.(*corev1.ConfigMap).Name
		},
	}))
	factory.Start(ctx.Done())
	require(cache.WaitForCacheSync(ctx.Done(), informer.HasSynced), "the informer never synced")
	expect := func(wanted string) {
		for {
			select {
			case change := <-changes:
				if change == wanted {
					return
				}
			case <-ctx.Done():
				panic("the informer was never told: " + wanted)
			}
		}
	}

	for n := range 5 {
		object := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("m", n), Labels: map[string]string{"a": "b"}},
			Data:       map[string]string{"k": "v"},
			BinaryData: map[string][]byte{"b": {0, 255}},
		}
		must(maps.Create(ctx, object, metav1.CreateOptions{}))
	}
	expect("added m4")
	_, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m0"}}, metav1.CreateOptions{})
	require(apierrors.IsAlreadyExists(err), "a second object of the name", err)

	found, options := 0, metav1.ListOptions{LabelSelector: "a=b", Limit: 2}
	for {
		page := must(maps.List(ctx, options))
		found += len(page.Items)
		if options.Continue = page.Continue; options.Continue == "" {
			break
		}
	}
	require(found == 5, "a list in pages", found)

	first := must(maps.Get(ctx, "m0", metav1.GetOptions{}))
	require(string(first.BinaryData["b"]) == "\x00\xff", "bytes come back", first.BinaryData)
	first.Data["k"] = "w"
	must(maps.Update(ctx, first, metav1.UpdateOptions{}))
	expect("updated m0")
	_, err = maps.Update(ctx, first, metav1.UpdateOptions{})
	require(apierrors.IsConflict(err), "an update of an older version", err)
	for _, patch := range []struct {
		form types.PatchType
		text string
	}{
		{types.MergePatchType, `{"data":{"merge":"1"}}`},
		{types.StrategicMergePatchType, `{"data":{"strategic":"1"}}`},
		{types.JSONPatchType, `[{"op":"add","path":"/data/json","value":"1"}]`},
	} {
		must(maps.Patch(ctx, "m0", patch.form, []byte(patch.text), metav1.PatchOptions{}))
	}
	apply := applycorev1.ConfigMap("m0", namespace).WithData(map[string]string{"applied": "1"})
	applied := must(maps.Apply(ctx, apply, metav1.ApplyOptions{FieldManager: "go"}))
	for _, key := range []string{"merge", "strategic", "json", "applied"} {
		require(applied.Data[key] == "1", "patched", key, applied.Data)
	}
	apply = applycorev1.ConfigMap("m0", namespace).WithData(map[string]string{"merge": "2"})
	_, err = maps.Apply(ctx, apply, metav1.ApplyOptions{FieldManager: "other"})
	require(apierrors.IsConflict(err), "what another manager owns", err)

	check(maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "a=b"}))
	expect("deleted m0")
	check(client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}))
}

func custom(ctx context.Context, config *rest.Config) {
	definitions := apiextensions.NewForConfigOrDie(config).ApiextensionsV1().CustomResourceDefinitions()
	keep := true
	definition := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "gadgets.clients.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "clients.example.com", Scope: apiextensionsv1.ClusterScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "gadgets", Kind: "Gadget"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", XPreserveUnknownFields: &keep,
				}},
			}},
		},
	}
	must(definitions.Create(ctx, definition, metav1.CreateOptions{}))
	established := func(ctx context.Context) (bool, error) {
		found, err := definitions.Get(ctx, definition.Name, metav1.GetOptions{})
		for _, condition := range found.Status.Conditions {
			if condition.Type == apiextensionsv1.Established && condition.Status == apiextensionsv1.ConditionTrue {
				return true, err
			}
		}
		return false, err
	}
	check(wait.PollUntilContextCancel(ctx, 20*time.Millisecond, true, established))
	gadgets := dynamic.NewForConfigOrDie(config).
		Resource(schema.GroupVersionResource{Group: "clients.example.com", Version: "v1", Resource: "gadgets"})
	watch := must(gadgets.Watch(ctx, metav1.ListOptions{}))
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "clients.example.com/v1", "kind": "Gadget",
		"metadata": map[string]any{"name": "g"}, "spec": map[string]any{"size": int64(3)},
	}}
	must(gadgets.Create(ctx, object, metav1.CreateOptions{}))
	event := <-watch.ResultChan()
	seen := event.Object.(*unstructured.Unstructured)
	size, _, err := unstructured.NestedInt64(seen.Object, "spec", "size")
	check(err)
	require(event.Type == "ADDED" && size == 3, "a watch of custom resources", event)
	watch.Stop()
	check(definitions.Delete(ctx, definition.Name, metav1.DeleteOptions{}))
}
