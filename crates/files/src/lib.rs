//! Files of this machine that Estive keeps or changes: the state directory with the deployments'
//! secrets, built layers, and one block in a file that belongs to somebody else.

mod error;
mod layer_index;
mod layer_store;
mod objects;
mod replace;
mod state;
mod stored_layers;

pub use error::FilesError;
pub use layer_store::{BuildError, BuildOptions, BuiltLayer, LayerStore};
pub use replace::{Changed, change_file};
pub use state::StateDirectory;
pub use stored_layers::StoredLayers;
