"""Prints a line when a tunnel comes up and when it goes down.

Run: kopf run --namespace NAMESPACE watcher.py

`kopf.on.event` only watches. Handlers such as `kopf.on.create` would write annotations or finalizers to the objects,
which the operator reverts. The handler is `async`: kopf calls other handlers in several threads, which mixes their lines.
"""
import kopf

KIND = ("reverse-tunnel.io", "v1alpha1", "reversetunnels")
known = set()


@kopf.on.event(*KIND)
async def on_event(type, uid, spec, **_):
    line = f"{spec['tenantID']} {spec['nodeID']} {spec['reporter']['id']}"
    if type == "DELETED":
        known.discard(uid)
        print("down", line, flush=True)
    elif uid not in known:
        known.add(uid)
        print("up", line, flush=True)
