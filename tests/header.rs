//! The C header is what cbindgen makes of `src/capi.rs`, and the interface is the one that was
//! agreed on.
//!
//! `OMENDB_WRITE=1 cargo test --test header` (`make header`) writes both files anew. A change of a line of
//! `include/omendb.abi` breaks programs that were compiled before, unless it is a new line at the end:
//! then `OMEN_ABI_VERSION` is due to be counted up.

#![allow(clippy::unwrap_used)] // a test

use std::path::Path;

const HEADER: &str = "include/omendb.h";
const ABI: &str = "include/omendb.abi";

fn header() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let source = root.join("src/capi.rs");
    let bindings = cbindgen::Builder::new().with_config(config).with_src(source).generate();
    let mut text = Vec::new();
    bindings.unwrap().write(&mut text);
    String::from_utf8(text).unwrap()
}

/// Each constant, type and function of a header in a line of its own, in their order.
fn interface(header: &str) -> String {
    let mut code = String::new();
    let mut rest = header;
    while let Some((before, comment)) = rest.split_once("/*") {
        code.push_str(before);
        rest = comment.split_once("*/").unwrap().1;
    }
    code.push_str(rest);
    let mut lines = String::new();
    let mut statement = String::new();
    for line in code.replace("\\\n", " ").lines().map(str::trim) {
        if line.starts_with('#') {
            if line.starts_with("#define") && !line.ends_with("_H") {
                lines.push_str(&line.split_whitespace().collect::<Vec<_>>().join(" "));
                lines.push('\n');
            }
            continue;
        }
        if line.is_empty() || line.starts_with("extern \"C\"") || line == "}  // extern \"C\"" {
            continue;
        }
        statement.extend([line, " "]);
        let open = statement.matches('{').count() > statement.matches('}').count();
        if line.ends_with(';') && !open {
            lines.push_str(&statement.split_whitespace().collect::<Vec<_>>().join(" "));
            lines.push('\n');
            statement.clear();
        }
    }
    assert!(statement.trim().is_empty(), "not understood: {statement}");
    lines
}

fn compare(name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("OMENDB_WRITE").is_some() {
        std::fs::write(&path, expected).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (committed, expected)) in committed.lines().zip(expected.lines()).enumerate() {
        assert_eq!(committed, expected, "{name}:{}: run `make header`", number + 1);
    }
    assert_eq!(committed.len(), expected.len(), "{name}: run `make header`");
}

#[test]
fn the_committed_header_is_the_one_that_cbindgen_makes() {
    compare(HEADER, &header());
}

#[test]
fn no_line_of_the_interface_has_changed() {
    let lines = interface(&header());
    assert!(lines.lines().filter(|line| line.contains('(')).count() > 20);
    compare(ABI, &lines);
}
