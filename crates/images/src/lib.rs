//! The image store: references, manifests, configurations, load, save, import, garbage collection.
