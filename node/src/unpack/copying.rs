//! `skerry unpack TOPIC… --to TOPIC`: into another topic instead of onto the screen.

use crate::cli::Unpack;
use crate::exit::Exit;
use skerry_bridge::uplink;
use skerry_bridge::uplink::unpack::{self, CopyError, Copying, Told};
use tokio_util::sync::CancellationToken;

/// What is asked for, or what is wrong with it.
pub fn asked(args: &Unpack, to: &str) -> Result<Copying, String> {
    if args.topics.iter().any(|topic| topic == to) {
        return Err(format!(
            "skerry: `{to}` is read and written to: what is written would be read again, without \
             end; give --to another topic"
        ));
    }
    let group = args.group.clone();
    Ok(Copying {
        topics: args.topics.clone(),
        to: to.to_owned(),
        group: group.unwrap_or_else(|| format!("skerry-unpack-{to}")),
        follow: args.follow,
        from_start: args.from_start,
        skip_damaged: args.skip_damaged,
    })
}

pub async fn copy(config: uplink::Config, job: Copying, stop: CancellationToken) -> Exit {
    let (topics, to, group) = (job.topics.join(", "), job.to.clone(), job.group.clone());
    let mut again = String::new();
    let mut tell = |told: Told<'_>| match told {
        Told::Begun {
            resumed,
            keeps_partitions,
        } => {
            again.clear();
            let from = if resumed {
                "where it stopped"
            } else {
                "the first record"
            };
            let partitions = if keeps_partitions {
                "in the same partitions"
            } else {
                "in partitions by key"
            };
            eprintln!("skerry: {topics} to {to} {partitions}, from {from} of the group {group}");
        }
        Told::Damaged(damaged) => eprintln!("skerry: passed over {damaged}"),
        Told::Again(error) => {
            let why = error.to_string();
            // While a cluster is away, once is enough.
            if again != why {
                eprintln!("skerry: {why}; trying again until it works");
                again = why;
            }
        }
    };
    match unpack::copy(config, job, stop, &mut tell).await {
        Ok(account) => super::told(account),
        Err(error) => {
            let advice = match error {
                CopyError::Cluster(_) => "; run it again, it goes on where it stopped",
                _ => "",
            };
            eprintln!("skerry: {error}{advice}");
            Exit::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn parsed(line: &str) -> Result<Unpack, String> {
        let words = line.split_whitespace();
        match Cli::try_parse_from(words)
            .map_err(|error| error.to_string())?
            .command
        {
            Command::Unpack(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_output_names_the_group_and_is_no_input() {
        let args = parsed("skerry unpack a b --to plain --follow").unwrap();
        let job = asked(&args, "plain").unwrap();
        assert_eq!(job.group, "skerry-unpack-plain");
        assert_eq!(
            (job.follow, job.skip_damaged, job.from_start),
            (true, false, false)
        );
        let args = parsed("skerry unpack a --to plain --group mine --skip-damaged").unwrap();
        let job = asked(&args, "plain").unwrap();
        assert_eq!((&*job.group, job.skip_damaged), ("mine", true));
        assert!(
            asked(&args, "a")
                .unwrap_err()
                .contains("`a` is read and written to")
        );
    }

    #[test]
    fn what_is_for_another_topic_needs_one() {
        for option in ["--group mine", "--skip-damaged", "--from-start"] {
            let refused = parsed(&format!("skerry unpack a {option}")).unwrap_err();
            assert!(refused.contains("--to"), "{refused}");
        }
    }
}
