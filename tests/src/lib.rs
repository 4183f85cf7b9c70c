//! What the behaviour tests share: namespaces, processes and traffic, each cleaned up when dropped.
