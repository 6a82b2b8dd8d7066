//! Seccomp profiles compiled to BPF programs.
