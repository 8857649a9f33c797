//! What do people see? Pages and assets.
