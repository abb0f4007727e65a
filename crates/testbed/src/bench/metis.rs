//! METIS, run as its program: what the benchmark `traffic` is compared with, and the reference that packs components.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::npb::Edges;
use crate::Error;

/// Parts, and how long it took as METIS says.
pub struct Parts {
    pub part: Vec<u32>,
    pub seconds: f64,
}

/// Partitions into `parts`; none when METIS refuses the graph (it refuses one without edges).
///
/// # Errors
/// The program cannot be started, or leaves something that is no partition.
pub fn partition(
    directory: &Path,
    edges: &Edges,
    vertices: u32,
    parts: u32,
    options: &[&str],
) -> Result<Option<Parts>, Error> {
    let graph = directory.join("graph");
    std::fs::write(&graph, text(edges, vertices)).map_err(Error::system("writing a graph"))?;
    let output = Command::new("gpmetis")
        .args(options)
        .arg(&graph)
        .arg(parts.to_string())
        .stdin(Stdio::null())
        .output()
        .map_err(Error::system("starting gpmetis (of the package metis)"))?;
    let out = String::from_utf8_lossy(&output.stdout);
    let seconds = out
        .lines()
        .find_map(|line| line.trim().strip_prefix("Partitioning:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    let Some(seconds) = seconds else {
        return Ok(None);
    };
    let left = directory.join(format!("graph.part.{parts}"));
    let text = std::fs::read_to_string(&left).map_err(Error::system("reading METIS's parts"))?;
    let part: Result<Vec<u32>, _> = text.lines().map(|line| line.trim().parse()).collect();
    let part = part.unwrap_or_default();
    if part.len() != vertices as usize || part.iter().any(|&part| part >= parts) {
        let error = std::io::Error::other("what gpmetis left is no partition");
        return Err(Error::system("reading METIS's parts")(error));
    }
    Ok(Some(Parts { part, seconds }))
}

/// The graph in METIS's own form.
fn text(edges: &Edges, vertices: u32) -> String {
    let mut rows = vec![String::new(); vertices as usize];
    for (&(one, other), weight) in edges {
        for (from, to) in [(one, other), (other, one)] {
            let _ = write!(rows[from as usize], "{} {weight} ", to + 1);
        }
    }
    format!("{vertices} {} 001\n{}\n", edges.len(), rows.join("\n"))
}

/// The component-aware reference of the measures: components that fit stay whole, larger ones are cut by METIS, what is
/// over in a part stands alone, and pieces are packed, the largest first, where the least room is left. Nothing is over.
///
/// # Errors
/// As [`partition`].
pub fn by_components(
    directory: &Path,
    edges: &Edges,
    vertices: u32,
    room: u32,
) -> Result<Vec<u32>, Error> {
    let mut pieces = Vec::new();
    for component in components(edges, vertices) {
        if component.len() <= room as usize {
            pieces.push(component);
            continue;
        }
        let inside: Edges = edges
            .iter()
            .filter_map(|(&(one, other), &weight)| {
                let one = component.binary_search(&one).ok()?;
                let other = component.binary_search(&other).ok()?;
                Some(((one as u32, other as u32), weight))
            })
            .collect();
        let count = component.len() as u32;
        let parts = count.div_ceil(room);
        let options = ["-ufactor=1", "-ptype=rb"];
        let cut = partition(directory, &inside, count, parts, &options)?;
        let mut cut_up = vec![Vec::new(); parts as usize];
        for (at, vertex) in component.into_iter().enumerate() {
            let part = cut.as_ref().map_or(at as u32 / room, |cut| cut.part[at]);
            cut_up[part as usize].push(vertex);
        }
        for mut part in cut_up {
            while part.len() > room as usize {
                pieces.extend(part.pop().map(|alone| vec![alone]));
            }
            if !part.is_empty() {
                pieces.push(part);
            }
        }
    }
    Ok(packed(pieces, vertices, room))
}

fn packed(mut pieces: Vec<Vec<u32>>, vertices: u32, room: u32) -> Vec<u32> {
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
    let room = room as usize;
    let mut host = vec![0; vertices as usize];
    let mut hosts = 0;
    let mut by_free: Vec<Vec<u32>> = vec![Vec::new(); room + 1];
    for piece in pieces {
        let free = (piece.len()..=room).find(|&free| !by_free[free].is_empty());
        let (at, free) = match free.and_then(|free| Some((by_free[free].pop()?, free))) {
            Some(found) => found,
            None => {
                hosts += 1;
                (hosts - 1, room)
            }
        };
        by_free[free - piece.len()].push(at);
        for vertex in piece {
            host[vertex as usize] = at;
        }
    }
    host
}

fn components(edges: &Edges, vertices: u32) -> Vec<Vec<u32>> {
    let mut neighbours = vec![Vec::new(); vertices as usize];
    for &(one, other) in edges.keys() {
        neighbours[one as usize].push(other);
        neighbours[other as usize].push(one);
    }
    let mut seen = vec![false; vertices as usize];
    let mut all = Vec::new();
    for start in 0..vertices {
        if std::mem::replace(&mut seen[start as usize], true) {
            continue;
        }
        let mut component = vec![start];
        let mut looked = 0;
        while let Some(&vertex) = component.get(looked) {
            looked += 1;
            for &next in &neighbours[vertex as usize] {
                if !std::mem::replace(&mut seen[next as usize], true) {
                    component.push(next);
                }
            }
        }
        component.sort_unstable();
        all.push(component);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_share_hosts_and_none_is_over() {
        let pieces = vec![
            vec![0],
            vec![1, 2, 3],
            vec![4, 5],
            vec![6, 7],
            vec![8, 9, 10],
        ];
        let host = packed(pieces, 11, 4);
        let mut count = std::collections::BTreeMap::new();
        for host in host {
            *count.entry(host).or_insert(0) += 1;
        }
        assert_eq!(count.into_values().collect::<Vec<_>>(), [3, 4, 4]);
    }

    #[test]
    fn the_form_is_that_of_the_manual() {
        let edges = Edges::from([((0, 1), 5), ((1, 2), 7)]);
        assert_eq!(text(&edges, 3), "3 2 001\n2 5 \n1 5 3 7 \n2 7 \n");
    }
}
