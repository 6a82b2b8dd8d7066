//! Docker's wire types, routes and versions.
