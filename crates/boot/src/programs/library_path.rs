//! The directories in which a root's dynamic linker finds libraries: those of `/etc/ld.so.conf`, then its own.

use crate::Result;
use crate::inside::Inside;

/// What the linkers of the distributions have built in: Debian's multiarch, then `lib64`, then the oldest; musl's too.
const BUILT_IN: [&str; 7] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
];

const FILE: &str = "/etc/ld.so.conf";
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Files that include each other end here.
const FILES_MAX: usize = 256;
const DIRECTORIES_MAX: usize = 256;

/// In the order they are looked through; each begins with `/`.
pub fn directories(inside: &Inside) -> Result<Vec<String>> {
    let mut directories = Vec::new();
    let mut files = 0;
    read(inside, FILE, &mut files, &mut directories)?;
    for directory in BUILT_IN {
        add(directory, &mut directories);
    }
    Ok(directories)
}

/// One file of ldconfig(8): directories, comments, and `include` with patterns. What else it may hold (`hwcap`)
/// chooses between builds of one library, and the plainest is there always.
fn read(
    inside: &Inside,
    path: &str,
    files: &mut usize,
    directories: &mut Vec<String>,
) -> Result<()> {
    *files += 1;
    // A root may have no such file: musl's, or one by hand.
    if *files > FILES_MAX || inside.find(path).is_none() {
        return Ok(());
    }
    let bytes = inside.read(path, FILE_BYTES_MAX)?;
    for line in String::from_utf8_lossy(&bytes).lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line
            .split([' ', '\t', ',', ':'])
            .filter(|word| !word.is_empty());
        match words.clone().next() {
            Some("include") => {
                for pattern in words.skip(1) {
                    for file in matching(inside, path, pattern)? {
                        read(inside, &file, files, directories)?;
                    }
                }
            }
            Some("hwcap") | None => {}
            // An old form: `directory=TYPE`.
            Some(_) => words.by_ref().for_each(|word| {
                add(word.split('=').next().unwrap_or(word), directories);
            }),
        }
    }
    Ok(())
}

/// The files of an `include`, sorted; `*` counts in the last component only, as everybody writes it.
fn matching(inside: &Inside, including: &str, pattern: &str) -> Result<Vec<String>> {
    let absolute = match pattern.starts_with('/') {
        true => pattern.to_owned(),
        false => {
            let parent = including.rsplit_once('/').map_or("", |(parent, _)| parent);
            format!("{parent}/{pattern}")
        }
    };
    let (directory, name) = absolute.rsplit_once('/').unwrap_or(("", &absolute));
    let Some((before, after)) = name.split_once('*') else {
        return Ok(vec![absolute]);
    };
    let fits = |name: &String| {
        name.len() >= before.len() + after.len()
            && name.starts_with(before)
            && name.ends_with(after)
            && !(name.starts_with('.') && before.is_empty())
    };
    let names = inside.names(directory)?;
    Ok(names
        .into_iter()
        .filter(fits)
        .map(|name| format!("{directory}/{name}"))
        .collect())
}

fn add(directory: &str, directories: &mut Vec<String>) {
    let directory = match directory.trim_end_matches('/') {
        "" => "/",
        directory => directory,
    };
    if directory.starts_with('/')
        && directories.len() < DIRECTORIES_MAX
        && !directories.iter().any(|known| known == directory)
    {
        directories.push(directory.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn includes_are_followed_inside_the_root_in_their_order() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        fs::create_dir_all(etc.join("ld.so.conf.d")).unwrap();
        fs::write(
            etc.join("ld.so.conf"),
            "include ld.so.conf.d/*.conf # all\n/last/\nhwcap 1 x\ninclude /etc/ld.so.conf\n",
        )
        .unwrap();
        fs::write(etc.join("ld.so.conf.d/b.conf"), "# none\n/b1 /b2,/lib64\n").unwrap();
        symlink("/etc/kept", etc.join("ld.so.conf.d/a.conf")).unwrap();
        fs::write(etc.join("kept"), "/a=libc6\nrelative\n").unwrap();
        fs::write(etc.join("ld.so.conf.d/c.other"), "/c\n").unwrap();
        let inside = Inside::open(root.path()).unwrap();
        let found = directories(&inside).unwrap();
        assert_eq!(found[..5], ["/a", "/b1", "/b2", "/lib64", "/last"]);
        assert_eq!(found[5..].len(), BUILT_IN.len() - 1);
    }

    #[test]
    fn a_root_without_the_file_has_what_is_built_in() {
        let root = tempfile::tempdir().unwrap();
        let inside = Inside::open(root.path()).unwrap();
        assert_eq!(directories(&inside).unwrap(), BUILT_IN);
    }
}
