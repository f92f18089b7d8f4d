//! Config files with problems: all of them at once, each with line and key, and exit code 2.

use std::fs;

use skerry_tests::node;
use skerry_tests::world::World;
use skerry_tests::{Context as _, Result, ensure, workspace};

/// Each line that ends in `# KEY` has a problem with this key.
const PROBLEMS: &str = r#"
[node]
name = "Not A Name"                 # name
data_dir = 5                        # data_dir
colour = "blue"                     # colour

[http]
listen = "nowhere"                  # listen

[store]
segment = "16 parsecs"              # segment
commit_delay_max = "5h"             # commit_delay_max

[mqtt]
listen = "0.0.0.0:99999"            # listen
packet_bytes_max = "0B"             # packet_bytes_max
connections_max = -3                # connections_max
republish = ["no-such-stream"]      # republish

[[stream]]
name = "UPPER CASE"                 # name
[[stream]]
name = "impossible"
bytes_max = "-1GiB"                 # bytes_max
when_full = "explode"               # when_full
topics = ["a/#/b"]                  # topics

[[opcua]]
name = "hall"
endpoint = "http://plc"             # endpoint
stream = "no-such-stream"           # stream
security_policy = "Rot13"           # security_policy
nodes = []

[kafka]
brokers = "not-a-list"              # brokers
topic = "plant/{stream}"            # topic
retries = 3                         # retries

[nonsense]                          # nonsense
x = 1
"#;

pub(crate) fn problems(world: &World) -> Result<()> {
    let path = world.folder().join("problems.toml");
    let file = path.display().to_string();
    fs::write(&path, PROBLEMS)?;
    for command in ["check", "run"] {
        let output = node::skerry(&[command, &file])?;
        ensure!(
            output.code == Some(2),
            "{command}: exit code {:?}",
            output.code
        );
        let report = output.text();
        for (index, line) in PROBLEMS.lines().enumerate() {
            let Some((_, key)) = line.split_once("# ") else {
                continue;
            };
            let place = format!(":{}: ", index + 1);
            let told = report
                .lines()
                .any(|told| told.contains(&place) && told.contains(key));
            ensure!(
                told,
                "{command} does not report {key} of line {}: {report}",
                index + 1
            );
        }
    }

    fs::write(&path, "[node\nname = \"n\"\n")?;
    let syntax = node::skerry(&["check", &file])?;
    ensure!(
        syntax.code == Some(2),
        "a syntax error: exit code {:?}",
        syntax.code
    );
    ensure!(
        syntax.text().contains(":1: "),
        "a syntax error without its line: {}",
        syntax.text()
    );

    let absent = world.folder().join("absent.toml").display().to_string();
    let missing = node::skerry(&["run", &absent])?;
    ensure!(
        missing.code == Some(2),
        "a missing file: exit code {:?}",
        missing.code
    );
    ensure!(
        missing.stderr.contains(&absent),
        "does not name the file: {}",
        missing.stderr
    );

    let right = world.node(world.settings()?)?;
    let file = right.config().to_str().context("a path in UTF-8")?;
    let checked = node::skerry(&["check", file])?;
    ensure!(
        checked.code == Some(0),
        "a good file is refused: {}",
        checked.text()
    );
    Ok(())
}

/// The example configs, and the ones in README.md, are right.
pub(crate) fn shipped(world: &World) -> Result<()> {
    let mut configs = Vec::new();
    for folder in ["configs", "configs/deb"] {
        for entry in fs::read_dir(workspace::root().join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "toml") {
                configs.push(path);
            }
        }
    }
    ensure!(!configs.is_empty(), "no example config is shipped");
    let readme = fs::read_to_string(workspace::root().join("README.md"))?;
    let blocks = blocks(&readme, "toml");
    ensure!(!blocks.is_empty(), "README.md shows no config");
    for (index, block) in blocks.iter().enumerate() {
        let path = world.folder().join(format!("readme-{index}.toml"));
        fs::write(&path, block)?;
        configs.push(path);
    }
    for path in configs {
        let checked = node::skerry(&["check", &path.display().to_string()])?;
        ensure!(
            checked.code == Some(0),
            "{}: {}",
            path.display(),
            checked.text()
        );
    }
    Ok(())
}

/// Every `skerry` command in README.md has the subcommands and options it uses.
pub(crate) fn readme_commands(_world: &World) -> Result<()> {
    let readme = fs::read_to_string(workspace::root().join("README.md"))?;
    let mut count = 0;
    for block in ["sh", "bash", "console", ""]
        .iter()
        .flat_map(|tag| blocks(&readme, tag))
    {
        for line in block.lines() {
            let line = line
                .trim_start_matches("$ ")
                .split(" #")
                .next()
                .unwrap_or("");
            let run = line.strip_prefix("cargo run --release -- ");
            let Some(arguments) = run.or_else(|| line.strip_prefix("skerry ")) else {
                continue;
            };
            // Help is printed once everything before it was understood, and nothing is run.
            let words: Vec<&str> = arguments.split_whitespace().chain(["--help"]).collect();
            let output = node::skerry(&words)?;
            ensure!(
                output.code == Some(0),
                "README.md says {line:?}: {}",
                output.text()
            );
            count += 1;
        }
    }
    ensure!(count > 0, "README.md shows no command");
    Ok(())
}

/// The fenced blocks of a Markdown text that carry this tag.
fn blocks(markdown: &str, tag: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        let Some(opened) = line.strip_prefix("```") else {
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if opened == tag {
            found.push(block.join("\n"));
        }
    }
    found
}
