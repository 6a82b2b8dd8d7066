//! The conex command: arguments to API calls to Docker's output.
