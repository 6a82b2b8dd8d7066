//! Containers, volumes, networks, images and events: what Conex knows and does, without HTTP.
