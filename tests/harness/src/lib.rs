//! A private engine, namespace and folder for every end-to-end test.
