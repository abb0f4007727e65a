//! A world, as a planner sees it: sites, hosts, domains, what they use, who talks to whom; and a plan, as a value.
//!
//! No I/O, no clock. Everything is held in vectors and named by its place in them, so that a world of 100,000 domains is
//! walked and compared fast; names are for people and for the text form.

mod amounts;
mod digest;
mod domain;
mod error;
pub mod ganeti;
mod host;
mod index;
pub mod laws;
mod plan;
mod plan_file;
mod rules;
pub mod text;
pub mod traces;
mod world;

pub use amounts::{RESERVED, Ratio, Reserved, ReservedKind, USED, Used, UsedKind};
pub use domain::{Domain, DomainLife, Window};
pub use error::WorldError;
pub use host::{Host, HostPower, OwnerHours, PowerCurve};
pub use index::{DomainIx, HostIx, Indexed, SiteIx, UserIx, VolumeIx};
pub use plan::{
    Act, Alternative, Figures, Foreseen, Hindrance, Plan, Reason, Report, Step, StepIx,
};
pub use plan_file::PlanFile;
pub use rules::{Hysteresis, Relation, Rules, Scope};
pub use world::{Deployment, Link, Operation, Site, Talk, Tariff, User, Volume, World};
