//! Nothing in the repository names one machine or one registry.
//!
//! Paths of the machine that somebody worked on, and hosts that packages come from, break
//! on the next machine. Where packages come from is a setting of cargo, apt or npm. The
//! needles are put together from pieces, so that this file does not find itself.

use crate::problem::Problem;
use crate::repository::Repository;

/// Folders of one machine. They count where a path starts, not inside a longer one.
const MACHINE_PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// Hosts of package registries.
const REGISTRIES: &[&str] = &[
    concat!("arti", "factory"),
    concat!("crates", ".io"),
    concat!("deb.", "debian.org"),
    concat!("files.python", "hosted.org"),
    concat!("proxy.", "golang.org"),
    concat!("py", "pi.org"),
    concat!("registry.", "npmjs.org"),
];

pub(crate) fn check(repository: &Repository) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (path, text) in repository.texts() {
        // cargo itself writes the name of its default registry into every entry.
        let lock = path == "Cargo.lock" || path.ends_with("/Cargo.lock");
        for (index, line) in text.lines().enumerate() {
            if let Some(needle) = MACHINE_PATHS.iter().find(|needle| starts_path(line, needle)) {
                let message = format!("`{needle}` is a folder of one machine");
                problems.push(Problem::new(path, index + 1, message));
            }
            if lock {
                continue;
            }
            if let Some(needle) = REGISTRIES.iter().find(|needle| line.contains(**needle)) {
                let message = format!("`{needle}` is a package registry: leave it to the tool");
                problems.push(Problem::new(path, index + 1, message));
            }
        }
    }
    problems
}

fn starts_path(line: &str, needle: &str) -> bool {
    line.match_indices(needle).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-}~*".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_paths_and_registries_are_found_in_any_text_file() {
        for needle in MACHINE_PATHS {
            let text = format!("first\ncd {needle}x\n");
            let problems = check(&Repository::of(&[("docs/a.md", &text)]));
            assert_eq!(problems.len(), 1, "{needle}");
            assert_eq!(problems[0].line, 2);
        }
        for needle in REGISTRIES {
            let text = format!("https://{needle}/x\n");
            assert_eq!(check(&Repository::of(&[("a.yaml", &text)])).len(), 1, "{needle}");
            assert_eq!(check(&Repository::of(&[("fuzz/Cargo.lock", &text)])), [], "{needle}");
        }
    }

    #[test]
    fn a_folder_inside_a_longer_path_is_no_machine_path() {
        for needle in MACHINE_PATHS {
            let text = format!("src{needle}a.rs and ${{DIR}}{needle}b\n");
            assert_eq!(check(&Repository::of(&[("a.md", &text)])), [], "{needle}");
        }
    }
}
