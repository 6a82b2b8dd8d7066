//! Layers on this disk and the root file systems made of them.
