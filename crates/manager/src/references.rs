//! The references of the configuration as they are now: what a name stands for, and the files that boot its clones, are
//! read when the manager starts, again and again while it runs, and before each `up` and start. Where that does not
//! work, nothing changes, and it is said.

use crate::agents::chain;
use crate::config::{ManagerConfig, ReferenceConfig, RootName};
use crate::early;
use crate::error::ManagerError;
use crate::event_log::About;
use crate::manager::{Manager, lock};
use crate::reference::{Files, Reference, SharedFile};
use estive_api::credentials::AuthorityKey;
use estive_api::domain_xml::RootSource;
use estive_api::{Client, Credentials, Endpoint, Problem, ProblemKind};
use estive_chunks::{MAX_ENCODED_BYTES, SignedManifest};
use estive_model::{Digest, EventKind, ReferenceName};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often they are read while nobody asks for anything.
const PERIOD: Duration = Duration::from_secs(10);
/// How long an origin may take to say what a name stands for.
const QUESTION: Duration = Duration::from_secs(3);

/// All of them.
pub(crate) struct References {
    places: BTreeMap<String, Place>,
    /// Whose signature counts.
    authority: Option<AuthorityKey>,
    known: Mutex<BTreeMap<String, Known>>,
    /// One reads at a time: what was read first is not put over what was read later.
    reading: tokio::sync::Mutex<()>,
    /// How often it was begun.
    begun: AtomicU64,
}

/// Where one is read from.
struct Place {
    config: ReferenceConfig,
    /// Who knows what its name stands for, in the order they are asked; none for one that is named by its digest.
    origins: Vec<Client>,
}

#[derive(Clone)]
struct Known {
    files: Files,
    /// The sealed one, if it has one.
    root: Option<RootSource>,
    /// Not while nobody has said which root its name stands for.
    is_known: bool,
    /// Why it could not be read the last time.
    trouble: Option<Problem>,
}

impl References {
    /// Reads the files; blocks. Nobody is asked for a root yet.
    pub fn load(
        config: &ManagerConfig,
        credentials: Option<&Credentials>,
    ) -> Result<Self, ManagerError> {
        let (mut places, mut known) = (BTreeMap::new(), BTreeMap::new());
        for (name, config) in &config.references {
            let files =
                Files::load(config).map_err(|(part, path, source)| ManagerError::Reference {
                    reference: name.clone(),
                    part,
                    path,
                    source,
                })?;
            let (root, asked) = match &config.root {
                None => (None, None),
                Some(root) => match &root.name {
                    RootName::Digest(digest) => (Some(root.source(digest)), None),
                    RootName::Reference(_) => (None, Some(&root.origins)),
                },
            };
            let client = |origin: &Endpoint| {
                Client::new(origin.clone(), credentials).map_err(|source| ManagerError::Origin {
                    reference: name.clone(),
                    source: Box::new(source),
                })
            };
            let place = Place {
                config: config.clone(),
                origins: asked
                    .into_iter()
                    .flatten()
                    .map(client)
                    .collect::<Result<_, _>>()?,
            };
            places.insert(name.clone(), place);
            let of_now = Known {
                files,
                root,
                is_known: asked.is_none(),
                trouble: None,
            };
            known.insert(name.clone(), of_now);
        }
        Ok(Self {
            places,
            authority: credentials.map(|credentials| credentials.authority().clone()),
            known: Mutex::new(known),
            reading: tokio::sync::Mutex::default(),
            begun: AtomicU64::default(),
        })
    }

    /// As it is known; `None` when there is none of that name, or nobody has said yet what its root is.
    pub fn get(&self, name: &str) -> Option<Reference> {
        let known = lock(&self.known).get(name).cloned()?;
        let config = &self.places.get(name)?.config;
        let Known { files, root, .. } = known;
        known
            .is_known
            .then(|| Reference::new(name, config, files, root))
    }

    /// The same, with what to say where there is none.
    pub fn find(&self, name: &str) -> Result<Reference, Problem> {
        if let Some(reference) = self.get(name) {
            return Ok(reference);
        }
        match self.trouble(name) {
            Some(trouble) => Err(trouble),
            None if self.places.contains_key(name) => Err(Problem::failed(format!(
                "which root the reference {name} has is just being asked for"
            ))
            .advice("try again")),
            None => {
                let known: Vec<&str> = self.places.keys().map(String::as_str).collect();
                Err(Problem::impossible(format!(
                    "there is no reference {name:?}; there are {}: {}",
                    known.len(),
                    known.join(", ")
                ))
                .advice("correct reference: in the herd file, or references: in the manager's configuration"))
            }
        }
    }

    /// Why it could not be read the last time, if it could not.
    pub fn trouble(&self, name: &str) -> Option<Problem> {
        lock(&self.known).get(name)?.trouble.clone()
    }

    /// All whose root is known.
    pub fn all(&self) -> BTreeMap<String, Reference> {
        let named = |name: &String| Some((name.clone(), self.get(name)?));
        self.places.keys().filter_map(named).collect()
    }

    /// Where those are served that clones mount from.
    pub fn routes(&self) -> Vec<(String, Vec<Endpoint>)> {
        let route = |(name, place): (&String, &Place)| {
            let route = place.config.route()?;
            Some((name.clone(), route.origins.clone()))
        };
        self.places.iter().filter_map(route).collect()
    }

    pub fn file(&self, digest: &Digest) -> Option<SharedFile> {
        let known = lock(&self.known);
        known
            .values()
            .find_map(|known| known.files.file(digest).cloned())
    }

    pub fn initramfs_paths(&self) -> Vec<PathBuf> {
        let known = lock(&self.known);
        let paths = known
            .values()
            .map(|known| known.files.initramfs.path.clone());
        paths.collect()
    }

    async fn read(&self, name: &str, place: &Place) -> Result<Known, Problem> {
        let root = match &place.config.root {
            None => None,
            Some(root) => Some(match &root.name {
                RootName::Digest(digest) => root.source(digest),
                RootName::Reference(word) => {
                    root.source(&self.ask(name, word, &place.origins).await?)
                }
            }),
        };
        let before = lock(&self.known).get(name).map(|known| known.files.clone());
        let config = place.config.clone();
        let wrong = |what: String| Problem::failed(format!("the reference {name}: {what}"));
        let reading = move || {
            let files =
                Files::load_anew(&config, before.as_ref()).map_err(|(part, path, error)| {
                    format!("reading its {part} {}: {error}", path.display())
                })?;
            let is_other = before.is_some_and(|before| !before.others(&files).is_empty());
            if let Some(early) = config.early.as_ref().filter(|_| is_other) {
                early::kernel_of(&files.kernel, &early.kernel_tree).map_err(|(what, _)| what)?;
            }
            Ok(files)
        };
        let files = tokio::task::spawn_blocking(reading).await;
        let files = files.unwrap_or_else(|error| Err(error.to_string()));
        Ok(Known {
            files: files.map_err(wrong)?,
            root,
            is_known: true,
            trouble: None,
        })
    }

    /// What a name stands for, by the first origin that knows it. One that is silent is not passed over: another may
    /// have what was so before.
    async fn ask(
        &self,
        name: &str,
        word: &ReferenceName,
        origins: &[Client],
    ) -> Result<Digest, Problem> {
        let path = format!("/v1/references/{word}");
        let limit = usize::try_from(MAX_ENCODED_BYTES).unwrap_or(usize::MAX);
        for origin in origins {
            let place = origin.endpoint();
            let bytes = match origin.get_bytes(&path, limit, QUESTION).await {
                Ok(bytes) => bytes,
                Err(error) if error.is_not_found() => continue,
                Err(error) => {
                    let what = format!("the reference {name}: asking {place} for {word}");
                    return Err(match error.problem() {
                        Some(said) => {
                            let mut problem = said.clone();
                            problem.error = format!("{what}: {}", said.error);
                            problem
                        }
                        None => Problem::new(
                            ProblemKind::Unreachable,
                            format!("{what}: {}", chain(&error)),
                        )
                        .advice("is estive storage running there?"),
                    });
                }
            };
            let wrong = |what: String| {
                Problem::refused(format!(
                    "the reference {name}: what {place} gives as {word} {what}"
                ))
            };
            let signed = SignedManifest::decode(&bytes)
                .map_err(|error| wrong(format!("is damaged: {error}")))?;
            let vouched = |authority: &AuthorityKey| authority.vouches_for(&signed);
            if !self.authority.as_ref().is_some_and(vouched) {
                return Err(wrong("is not signed by our authority".to_owned()));
            }
            return Ok(signed.manifest.name());
        }
        Err(Problem::not_found(format!(
            "the reference {name}: none of its origins has a reference {word}"
        ))
        .advice(format!(
            "estive seal --name {word} makes it; estive references ls lists those there are"
        )))
    }
}

impl Manager {
    /// Reads all references anew, now.
    pub async fn read_references(&self) {
        let begun = &self.references.begun;
        let asked = begun.load(Ordering::SeqCst);
        let _one = self.references.reading.lock().await;
        if begun.load(Ordering::SeqCst) > asked {
            // Another has read them since: however many are started at once, a silent origin is waited for once.
            return;
        }
        begun.fetch_add(1, Ordering::SeqCst);
        let read = self.references.places.iter().map(async |(name, place)| {
            let read = self.references.read(name, place).await;
            (name, read)
        });
        for (name, read) in join_all(read).await {
            let said = {
                let mut all = lock(&self.references.known);
                let Some(known) = all.get_mut(name) else {
                    continue;
                };
                match read {
                    Ok(read) => {
                        let said = changed(name, known, &read);
                        *known = read;
                        said
                    }
                    Err(problem) => {
                        // Once, however long it lasts.
                        let is_new = known.trouble.as_ref().map(|known| &known.error)
                            != Some(&problem.error);
                        let said = is_new.then(|| format!("{}; it stays as it was", problem.error));
                        known.trouble = Some(problem);
                        said
                    }
                }
            };
            if let Some(reason) = said {
                self.events
                    .tell(EventKind::Reference, About::default(), reason);
            }
        }
    }

    /// Reads them again and again, until the shutdown.
    pub fn watch_references(self: &Arc<Self>) {
        let manager = self.clone();
        self.spawn(async move {
            let mut ticks = tokio::time::interval(PERIOD);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = manager.shutdown.cancelled() => return,
                    _ = ticks.tick() => {}
                }
                manager.read_references().await;
            }
        });
    }
}

fn changed(name: &str, before: &Known, now: &Known) -> Option<String> {
    let mut others = before.files.others(&now.files);
    let root = now.root.as_ref().map(|root| &root.name);
    if before.is_known && before.root.as_ref().map(|root| &root.name) != root {
        others.insert(0, "root");
    }
    let stands_for = root.map_or(String::new(), |root| format!("; its root is {root}"));
    match (others.is_empty(), &before.trouble) {
        (false, _) => Some(format!(
            "the reference {name} has another {}{stands_for}; clones take it at their next start",
            others.join(", ")
        )),
        (true, Some(_)) => Some(format!(
            "the reference {name} can be read again{stands_for}"
        )),
        (true, None) => None,
    }
}
