//! A domain's volume, seen from its host: the export of its generation, and the fence before it runs.

use crate::definition;
use crate::domain::Domain;
use estive_api::domain_xml::{Description, DomainXml};
use estive_api::wire::{ExportPlace, FenceOrder, VolumeReport};
use estive_api::{Client, ClientError, Endpoint, Problem, ProblemKind};
use estive_model::{Generation, NbdSource};
use estive_moves::Holding;
use std::time::Duration;

/// For an export: its daemon may have to be started.
const EXPORT: Duration = Duration::from_secs(30);
/// For a fence, which is asked for again until it is confirmed.
const FENCE: Duration = Duration::from_secs(5);

/// Advice where a storage host does not answer.
const IS_IT_THERE: &str = "is estive storage running there, with --volumes?";

impl Domain {
    /// The export that an instance of this generation may use; none without a volume.
    pub(crate) async fn volume_export(
        &self,
        xml: &DomainXml,
        generation: Generation,
    ) -> Result<Option<NbdSource>, Problem> {
        let Some(volume) = &xml.volume else {
            return Ok(None);
        };
        let path = format!("/v1/volumes/{}/exports/{}", volume.export, generation.0);
        let client = self.storage(volume)?;
        let place: Result<ExportPlace, _> = client.put_json(&path, &(), EXPORT).await;
        let place = place.map_err(|error| self.refused(volume, "let it in", &error))?;
        Ok(Some(NbdSource {
            host: place.host,
            port: place.port,
            export: place.export,
            tls: place.tls,
        }))
    }

    /// Has the storage host cut every older generation off; `first`: for the first time as this generation. Until it says
    /// so the domain does not run; it is looked at again, unless it was refused for good.
    pub(crate) async fn fence(
        &mut self,
        generation: Generation,
        first: bool,
    ) -> Result<(), Problem> {
        let xml = match definition::read_xml(&self.agent.place(&self.name))? {
            Description::Clone(xml) => xml,
            // Nobody keeps others from its images while it is saved: what they are like now says whether one was there.
            Description::Images(xml) if self.record.entry.holding == Holding::Restoring => {
                return self.are_as_saved(&xml).await;
            }
            Description::Images(_) => return Ok(()),
        };
        let Some(volume) = &xml.volume else {
            return Ok(());
        };
        let path = format!("/v1/volumes/{}/fence", volume.export);
        let client = self.storage(volume)?;
        let order = FenceOrder {
            generation,
            only_at: self.may_have_had_the_volume(first),
        };
        // Sent again after it was done, it would find its own number and take it for somebody else's.
        let fenced: Result<VolumeReport, _> = client.put_json_once(&path, &order, FENCE).await;
        match fenced {
            Ok(_) => Ok(()),
            Err(error) => {
                let problem = self.refused(volume, "cut off who had it before", &error);
                self.note(match &problem.advice {
                    Some(advice) => format!("{}; {advice}", problem.error),
                    None => problem.error.clone(),
                });
                if self.record.entry.holding != Holding::Restoring {
                    // Said for good, it is not asked for again before somebody orders something else.
                    let for_good = [ProblemKind::Refused, ProblemKind::Impossible];
                    if error.problem().is_some() && for_good.contains(&problem.kind) {
                        return Err(problem);
                    }
                    self.look_again();
                    return Err(match error.problem() {
                        Some(_) => problem,
                        None => problem.advice(format!("{IS_IT_THERE} it is asked again")),
                    });
                }
                Err(problem.advice(format!(
                    "what was saved is kept: estive restore {0} again; or give it up: estive save {0} --drop",
                    self.name
                )))
            }
        }
    }

    /// Gives an export back that no instance uses any more. If the storage host does not hear it, the next generation's
    /// fence does it.
    pub(crate) fn withdraw_export(&self, generation: Generation) {
        let xml = definition::read_clone(&self.agent.place(&self.name));
        let Some(volume) = xml.ok().flatten().and_then(|xml| xml.volume) else {
            return;
        };
        let Ok(client) = self.storage(&volume) else {
            return;
        };
        let name = self.name.clone();
        self.agent.spawn(async move {
            let path = format!("/v1/volumes/{}/exports/{}", volume.export, generation.0);
            let withdrawn: Result<(), _> = client.delete_json(&path, FENCE).await;
            if let Err(error) = withdrawn {
                tracing::warn!(domain = %name, %generation, %error, "its export was not given back");
            }
        });
    }

    fn storage(&self, volume: &NbdSource) -> Result<Client, Problem> {
        let endpoint = Endpoint::Tls {
            host: volume.host.clone(),
            port: volume.port,
        };
        self.agent.client(&endpoint.to_string())
    }

    /// What the storage host said, with its advice; or that it said nothing.
    fn refused(&self, volume: &NbdSource, doing: &str, error: &ClientError) -> Problem {
        let (name, host, port) = (&self.name, &volume.host, volume.port);
        let text = |said: &str| {
            format!("{name} does not run: its storage host {host}:{port} did not {doing}: {said}")
        };
        match error.problem() {
            Some(said) => Problem {
                error: text(&said.error),
                ..said.clone()
            },
            None => {
                let said = Problem::from_error(ProblemKind::Failed, error).error;
                Problem::unreachable(text(&said)).advice(IS_IT_THERE)
            }
        }
    }
}
