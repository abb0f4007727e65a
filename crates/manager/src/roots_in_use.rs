//! Which sealed roots somebody needs: what references stand for, what clones are made of wherever they are, and what
//! volumes were written over.

use crate::manager::Manager;
use crate::volume_roots::{PREFIX, VolumeRoot};
use estive_api::Problem;
use estive_api::wire::{RootUse, RootsInUse};
use estive_moves::Wanted;
use std::collections::BTreeMap;

impl Manager {
    pub(crate) async fn roots_in_use(&self) -> Result<RootsInUse, Problem> {
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut unknown = Vec::new();
        for (name, reference) in self.references.all() {
            if reference.root.is_none() {
                continue;
            }
            let of = users.entry(reference.root_name()).or_default();
            of.push(format!("the manager's reference {name}"));
        }
        for record in self.records.domains().await? {
            let state = match record.ownership.wanted {
                Wanted::Running => "on",
                Wanted::Stopped => "stopped on",
                Wanted::Saved => "saved on",
            };
            let shown = format!("{} {state} {}", record.name, record.ownership.host);
            for root in record.given {
                let of = users.entry(root).or_default();
                of.push(format!("{shown}, which was sent it"));
            }
            match record.made_of {
                Some(made_of) => users.entry(made_of.root).or_default().push(shown),
                None if record.deployment.is_none() => {}
                None => unknown.push(shown),
            }
        }
        for volume in self.records.all::<VolumeRoot>(PREFIX).await? {
            let of = users.entry(volume.root).or_default();
            of.push(format!("the volume of {}", volume.volume));
        }
        let roots = users.into_iter();
        Ok(RootsInUse {
            roots: roots.map(|(root, users)| RootUse { root, users }).collect(),
            unknown,
        })
    }
}
