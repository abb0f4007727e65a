//! Files of this machine that commands of Estive keep or change: the state directory of layers with
//! the deployments' secrets, and one block in a file that belongs to somebody else.

mod error;
mod replace;
mod state;

pub use error::FilesError;
pub use replace::{Changed, change_file};
pub use state::StateDirectory;
