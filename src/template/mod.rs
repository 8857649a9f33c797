//! What does an annotation say? Go's text/template as alerts use it.
