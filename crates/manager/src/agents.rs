//! What the manager says to an agent, one method for each route it uses.

use bytes::Bytes;
use estive_api::client::Lines;
use estive_api::domain_xml::CONFIG_FILE;
use estive_api::wire::{
    AgentAbout, AnsweredOrder, Boots, DomainReport, GrantAnswer, GrantOrder, LayerLine,
    MAX_DOCUMENT_BYTES, MoveOrder, OperationReport, PrepareQuery, Prepared, SaveOrder, StatusOrder,
};
use estive_api::{Client, ClientError, Endpoint, Problem, ProblemKind};
use estive_model::{Digest, DomainName, Event, Generation, HostName, OperationId};
use estive_moves::{Answer, Entry, HostView, Seen};
use std::time::Duration;

/// For a question that an agent answers from memory.
pub(crate) const QUESTION: Duration = Duration::from_secs(3);
/// For an order that makes or ends a process there.
pub(crate) const ORDER: Duration = Duration::from_secs(60);
/// For memory that goes to a disk, or comes from there.
pub(crate) const SAVE: Duration = Duration::from_secs(900);
/// For files of some hundred megabytes.
const UPLOAD: Duration = Duration::from_secs(300);
/// The largest archive without its shared files: a layer and two small documents.
/// A kernel, its modules or an initial RAM file system.
const SHARED_BYTES: usize = 1 << 30;
const ARCHIVE_BYTES: usize = 64 << 20;
/// How much of a console log is read for a message.
const CONSOLE_BYTES: usize = 64 << 20;

/// One host's agent.
#[derive(Clone)]
pub(crate) struct Agent {
    pub name: HostName,
    pub endpoint: Endpoint,
    client: Client,
}

impl Agent {
    pub fn new(name: HostName, client: Client) -> Self {
        Self {
            name,
            endpoint: client.endpoint().clone(),
            client,
        }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub async fn about(&self) -> Result<AgentAbout, ClientError> {
        self.client.get_json("/about", QUESTION).await
    }

    pub async fn domains(&self) -> Result<Vec<DomainReport>, ClientError> {
        self.client.get_json("/domains", QUESTION).await
    }

    pub async fn events(&self, after: u64) -> Result<Vec<Event>, ClientError> {
        self.client
            .get_json(&format!("/events?after={after}"), QUESTION)
            .await
    }

    /// What the agent says of a domain; `None`: it never heard of it.
    pub async fn status(&self, domain: &DomainName) -> Result<Option<DomainReport>, ClientError> {
        match self
            .client
            .get_json(&format!("/domain/{domain}/status"), QUESTION)
            .await
        {
            Ok(report) => Ok(Some(report)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn define(
        &self,
        domain: &DomainName,
        generation: Generation,
        archive: Bytes,
    ) -> Result<DomainReport, ClientError> {
        let path = format!("/domain/{domain}?generation={generation}");
        self.client
            .put_bytes(&path, "application/x-tar", archive, ORDER)
            .await
    }

    /// Has a domain take another layer; the lines end with how it ended.
    pub async fn push_layer(
        &self,
        domain: &DomainName,
        generation: Generation,
        dry_run: bool,
        layer: Bytes,
    ) -> Result<Lines<LayerLine>, ClientError> {
        let path = format!("/domain/{domain}/layer?generation={generation}&dry_run={dry_run}");
        let put = http::Method::PUT;
        self.client
            .stream_lines_of(put, &path, "application/x-cpio", layer, ORDER)
            .await
    }

    pub async fn put_file(&self, digest: &Digest, bytes: Bytes) -> Result<(), ClientError> {
        let path = format!("/file/{digest}");
        let _: serde_json::Value = self
            .client
            .put_bytes(&path, "application/octet-stream", bytes, UPLOAD)
            .await?;
        Ok(())
    }

    /// A shared file that a domain there is started with, as it says it is.
    pub async fn shared_file(
        &self,
        domain: &DomainName,
        digest: &Digest,
    ) -> Result<Bytes, ClientError> {
        let path = format!("/domain/{domain}/{digest}");
        self.client.get_bytes(&path, SHARED_BYTES, UPLOAD).await
    }

    /// How a domain there is described, as XML.
    pub async fn description(&self, domain: &DomainName) -> Result<Bytes, ClientError> {
        let path = format!("/domain/{domain}/{CONFIG_FILE}");
        self.client
            .get_bytes(&path, MAX_DOCUMENT_BYTES, QUESTION)
            .await
    }

    pub async fn order(
        &self,
        domain: &DomainName,
        order: &StatusOrder,
    ) -> Result<DomainReport, ClientError> {
        let within = ORDER + Duration::from_millis(order.grace_ms);
        self.client
            .put_json(&format!("/domain/{domain}/status"), order, within)
            .await
    }

    /// Has it save a domain that runs as this generation.
    pub async fn save(
        &self,
        domain: &DomainName,
        generation: Generation,
    ) -> Result<DomainReport, ClientError> {
        let order = SaveOrder {
            generation: Some(generation),
        };
        let path = format!("/domain/{domain}/saved");
        self.client.put_json(&path, &order, SAVE).await
    }

    /// Has a saved domain go on as this generation.
    pub async fn restore(
        &self,
        domain: &DomainName,
        generation: Generation,
    ) -> Result<DomainReport, ClientError> {
        let order = SaveOrder {
            generation: Some(generation),
        };
        let path = format!("/domain/{domain}/restore");
        self.client.post_json(&path, &order, SAVE).await
    }

    /// Has it drop what was saved of a domain.
    pub async fn drop_saved(&self, domain: &DomainName) -> Result<DomainReport, ClientError> {
        let path = format!("/domain/{domain}/saved");
        self.client.delete_json(&path, ORDER).await
    }

    pub async fn delete(&self, domain: &DomainName) -> Result<(), ClientError> {
        match self
            .client
            .delete_json::<serde_json::Value>(&format!("/domain/{domain}"), ORDER)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The domain's archive, without the files that are named by digest.
    pub async fn archive(&self, domain: &DomainName) -> Result<Bytes, ClientError> {
        self.client
            .get_bytes(&format!("/domain/{domain}"), ARCHIVE_BYTES, QUESTION)
            .await
    }

    pub async fn prepare(
        &self,
        domain: &DomainName,
        query: &PrepareQuery,
        archive: Bytes,
    ) -> Result<Prepared, ClientError> {
        let path = format!(
            "/domain/{domain}/incoming?generation={}&post_copy={}&operation={}&source={}",
            query.generation, query.post_copy, query.operation, query.source
        );
        self.client
            .put_bytes(&path, "application/x-tar", archive, ORDER)
            .await
    }

    /// Whether the images of a domain are there the very files that its source has, as its archive shows them.
    pub async fn has_images(&self, domain: &DomainName, archive: Bytes) -> Result<(), ClientError> {
        let path = format!("/domain/{domain}/images");
        let kind = "application/x-tar";
        self.client.put_bytes(&path, kind, archive, ORDER).await
    }

    pub async fn send(
        &self,
        domain: &DomainName,
        order: &MoveOrder,
    ) -> Result<OperationReport, ClientError> {
        self.client
            .post_json(&format!("/domain/{domain}/move"), order, ORDER)
            .await
    }

    pub async fn abort(
        &self,
        domain: &DomainName,
        generation: Generation,
    ) -> Result<Option<Answer>, ClientError> {
        self.grant(domain, "abort", generation).await
    }

    pub async fn discard(
        &self,
        domain: &DomainName,
        generation: Generation,
    ) -> Result<Option<Answer>, ClientError> {
        self.grant(domain, "discard", generation).await
    }

    async fn grant(
        &self,
        domain: &DomainName,
        word: &str,
        generation: Generation,
    ) -> Result<Option<Answer>, ClientError> {
        let path = format!("/domain/{domain}/{word}");
        let answer: GrantAnswer = self
            .client
            .post_json(&path, &GrantOrder { generation }, ORDER)
            .await?;
        Ok(serde_json::from_value(answer.answer).ok())
    }

    pub async fn operation(&self, operation: &OperationId) -> Result<OperationReport, ClientError> {
        self.client
            .get_json(&format!("/operation/{operation}"), QUESTION)
            .await
    }

    /// What is known of the boots of a domain.
    pub async fn boots(&self, domain: &DomainName) -> Result<Boots, ClientError> {
        self.client
            .get_json(&format!("/domain/{domain}/boots"), QUESTION)
            .await
    }

    /// Tells it the boots of a domain that moves there.
    pub async fn bring_along(&self, domain: &DomainName, boots: &Boots) -> Result<(), ClientError> {
        self.client
            .put_json(&format!("/domain/{domain}/boots"), boots, QUESTION)
            .await
    }

    /// Tells it that a domain answers, which it was asked to start.
    pub async fn tell_answered(
        &self,
        domain: &DomainName,
        order: &AnsweredOrder,
    ) -> Result<bool, ClientError> {
        self.client
            .put_json(&format!("/domain/{domain}/boots/answered"), order, QUESTION)
            .await
    }

    /// The last lines of a domain's console, in one text; empty when they cannot be had.
    pub async fn console_tail(&self, domain: &DomainName, lines: usize) -> String {
        let path = format!("/domain/{domain}/console.log");
        let Ok(bytes) = self.client.get_bytes(&path, CONSOLE_BYTES, QUESTION).await else {
            return String::new();
        };
        tail(&String::from_utf8_lossy(&bytes), lines)
    }
}

/// The last lines that are not empty, without anything that moves a terminal's cursor.
fn tail(text: &str, lines: usize) -> String {
    let clean: Vec<String> = text
        .lines()
        .rev()
        .map(|line| {
            line.chars()
                .filter(|c| !c.is_control())
                .take(300)
                .collect::<String>()
        })
        .filter(|line| !line.trim().is_empty())
        .take(lines)
        .collect();
    clean.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// What an agent's report says, in the machine's words; nothing heard of the domain is the default entry.
pub(crate) fn host_view(answer: &Result<Option<DomainReport>, ClientError>) -> HostView {
    match answer {
        Ok(None) => HostView::Says(Entry::default(), Seen::Gone),
        Ok(Some(report)) => view_of(report),
        Err(_) => HostView::Silent,
    }
}

/// The same for a report that was had. Words that are not understood are as good as silence.
pub(crate) fn view_of(report: &DomainReport) -> HostView {
    if report.journal.doubt.is_some() {
        return HostView::Silent;
    }
    let entry = serde_json::from_value::<Entry>(report.journal.entry.clone());
    let seen = serde_json::from_value::<Seen>(report.journal.seen.clone());
    match (entry, seen) {
        (Ok(entry), Ok(seen)) => HostView::Says(entry, seen),
        _ => HostView::Silent,
    }
}

/// Whether nobody answered, or nobody answered in full.
pub(crate) fn is_silence(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Unreachable { .. } | ClientError::Interrupted { .. }
    )
}

/// A client's error as a problem of ours, with the host's name.
pub(crate) fn problem(
    host: &HostName,
    doing: impl std::fmt::Display,
    error: &ClientError,
) -> Problem {
    match error.problem() {
        Some(said) => {
            let mut problem = said.clone();
            problem.error = format!("{doing}: host {host}: {}", said.error);
            // Our own right towards an agent is a matter of set-up, not of the one who asked us.
            if problem.kind == ProblemKind::Refused && matches!(error, ClientError::Refused { .. })
            {
                problem.kind = ProblemKind::Failed;
            }
            problem
        }
        None if is_silence(error) => Problem::unreachable(format!(
            "{doing}: the agent of host {host} does not answer ({})",
            chain(error)
        ))
        .advice(format!(
            "is the agent running on {host}? estive hosts shows what is known"
        )),
        None => Problem::failed(format!("{doing}: host {host}: {}", chain(error))),
    }
}

/// An error and all its sources in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    Problem::from_error(ProblemKind::Failed, error).error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_console_is_clean() {
        let text = "one\r\n\u{1b}[2Jtwo\n\n\nthree\n";
        assert_eq!(tail(text, 2), "[2Jtwo\nthree");
        assert_eq!(tail("", 5), "");
    }
}
