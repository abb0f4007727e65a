//! Telling somebody who watches what is being rendered.

/// Is told, from every thread that renders, before each template and after it.
pub trait RenderProgress: Sync {
    /// A template (`SET/PATH.j2`) is being rendered; `clone` is `any clone` where it is the same for all.
    fn begin(&self, template: &str, clone: &str);
    fn end(&self);
}

/// Nobody watches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unwatched;

impl RenderProgress for Unwatched {
    fn begin(&self, _template: &str, _clone: &str) {}
    fn end(&self) {}
}
