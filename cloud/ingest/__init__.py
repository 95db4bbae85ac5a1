"""Taking samples and records in from the edges: offer, want, data, stored.

The order is fixed: image durable in the object store, row committed, then the acknowledgement; never another way.
Every message may come twice, late, or in another order, and is answered the same. `service` is independent of the
transport; `mqtt` binds it to the broker. What cannot be read is a dead letter, never a crash and never silence.
"""
