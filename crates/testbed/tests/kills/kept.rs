//! The stateful domain of the cases: it runs with all that it has acknowledged, and nobody but its owner may open its
//! volume.

use serde_json::Value;

use crate::cases::{Case, Ends, Halt, Victim};
use crate::common::{herd, stdout};
use crate::field::{Fact, Field, said};

/// What a guest can write within a moment even on a busy machine.
const LINES: u64 = 10;

pub struct Kept {
    name: &'static str,
    address: String,
    /// The last line that is known to be on disk.
    last: u64,
}

impl Kept {
    pub async fn comes_up(field: &Field, name: &'static str) -> Fact<Self> {
        let yaml = format!(
            "network: 10.77.0.0/24\naddresses: 10.77.0.151-10.77.0.199\nmemory_mib: 160\ncpus: 1\nsets: []\nup: [ping]\n\
             mode: stateful\nvolume: {{size: 64M}}\nhosts:\n  {name}: {{host: host1}}\n"
        );
        let rows = field.bed.estive_json(&["up", &herd("kept", &yaml)]).await;
        let rows = rows.map_err(said)?;
        let address = rows[0]["address"].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            name,
            address,
            last: 0,
        })
    }
}

impl Field {
    /// What its file holds: the last number. `None`: it does not answer.
    async fn log(&self, kept: &Kept) -> Option<Fact<u64>> {
        let url = format!("http://{}/log", kept.address);
        let asked = ["curl", "-sS", "-m", "10", &url];
        let answer = self.bed.topology().client.run_in(&asked).await.ok()?;
        let log: Value = serde_json::from_str(stdout(&answer).trim()).ok()?;
        let last = log["last"].as_u64()?;
        Some(match log["contiguous"] == true && last >= kept.last {
            true => Ok(last),
            false => Err(format!("{} was synced, and it has {log}", kept.last)),
        })
    }

    /// All that was synced is there, and more comes.
    pub async fn has_its_data(&mut self) -> Fact<()> {
        let Some(mut kept) = self.kept.take() else {
            return Err("there is no stateful domain".to_owned());
        };
        let read = async |field: &Self| field.log(&kept).await;
        let first = self.until("its file is read", read).await??;
        let more = async |field: &Self| match field.log(&kept).await? {
            Ok(last) => (last >= first + LINES).then_some(Ok(last)),
            lost => Some(lost),
        };
        kept.last = self.until("it writes on", more).await??;
        self.kept = Some(kept);
        Ok(())
    }

    /// What the storage host says of who may open its volume: its owner, at most. A storage host that was dead when a
    /// move was given up has not heard of it; that is the next fence's.
    pub async fn nobody_else_may_open_it(&self, case: &Case, on: u8) -> Fact<()> {
        let Some(kept) = &self.kept else {
            return Err("there is no stateful domain".to_owned());
        };
        if matches!(case.halt, Halt::Fault(Victim::Storage, ..))
            && matches!(case.ends, Ends::Runs(_))
        {
            return Ok(());
        }
        let owner = format!("host{on}");
        self.until("nobody but its owner may open its volume", async |field| {
            let volume = field.bed.estive_json(&["volume", "show", kept.name]).await;
            let volume = volume.ok()?;
            let hosts = |key: &str| -> Option<Vec<String>> {
                let exports = volume[key].as_array()?.iter();
                exports
                    .map(|export| Some(export["client"].as_str()?.to_owned()))
                    .collect()
            };
            let (granted, open) = (hosts("granted")?, hosts("exports")?);
            granted
                .iter()
                .chain(&open)
                .all(|client| *client == owner)
                .then_some(())
        })
        .await
    }
}
