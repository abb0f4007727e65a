//! From a herd file and template sets to each clone's layer. Pure: text in, bytes out; the only
//! thing read from outside is the tree of a template set.

mod address_plan;
mod cascade;
mod error;
pub mod herd;
mod host_range;
mod layer;
mod plan;
mod problem;
mod reserved;
mod secrets;
mod set_settings;
mod template_set;
mod tree;
mod yaml;

pub use error::LayerError;
pub use layer::{Layer, Renderer, render, render_herd};
pub use plan::{ClonePlan, HerdPlan, UpCheck};
pub use problem::{HerdError, Problem};
pub use secrets::{CloneSecrets, DeploymentSecret};
pub use template_set::TemplateSet;
pub use tree::{Owner, Tree, TreeNode};
pub use yaml::Position;
