//! From a herd file and template sets to each clone's layer. Pure: text in, bytes out; the only
//! thing read from outside is the tree of a template set.

mod address_plan;
mod cascade;
mod clone_list;
mod error;
mod field;
mod frame;
pub mod herd;
mod host_range;
mod joined;
mod layer;
mod marked_block;
mod plan;
mod problem;
mod provenance;
mod reserved;
mod secrets;
mod set_reads;
mod set_settings;
mod set_variable;
mod template_set;
mod tree;
mod variables;
mod yaml;

pub use clone_list::{ListFormat, ListedClone, list_clones};
pub use error::LayerError;
pub use layer::{Layer, Renderer, render, render_herd};
pub use marked_block::{BlockError, put_block, remove_block};
pub use plan::{ClonePlan, CloneValues, HerdPlan, UpCheck};
pub use problem::{HerdError, HerdWarnings, Problem};
pub use provenance::{EarlierValue, Level, Source, TracedValue};
pub use secrets::{CloneSecrets, DeploymentSecret};
pub use set_variable::{SetVariable, VariableType};
pub use template_set::TemplateSet;
pub use tree::{Owner, Tree, TreeNode};
pub use variables::check_variables;
pub use yaml::Position;
