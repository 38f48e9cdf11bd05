// Prints a line when a tunnel comes up and when it goes down. It lists and watches with a cache, so it reconnects by
// itself and reports what changed in the meantime.
package main

import (
	"fmt"
	"os"

	"github.com/reverse-tunnel-operator/reverse-tunnel-operator/api/go/v1alpha1"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager/signals"
)

func main() {
	log.SetLogger(zap.New())
	ctx := signals.SetupSignalHandler()
	scheme := runtime.NewScheme()
	must(v1alpha1.AddToScheme(scheme))
	objects, err := cache.New(config.GetConfigOrDie(), cache.Options{
		Scheme:            scheme,
		DefaultNamespaces: map[string]cache.Config{os.Getenv("NAMESPACE"): {}},
	})
	must(err)
	tunnels, err := objects.GetInformer(ctx, &v1alpha1.ReverseTunnel{})
	must(err)
	_, err = tunnels.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { report("up", object) },
		DeleteFunc: func(object any) {
			if last, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
				object = last.Obj
			}
			report("down", object)
		},
	})
	must(err)
	must(objects.Start(ctx))
}

func report(event string, object any) {
	tunnel := object.(*v1alpha1.ReverseTunnel)
	fmt.Println(event, tunnel.Spec.TenantID, tunnel.Spec.NodeID, tunnel.Spec.Reporter.ID)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
