//! One group's subscription as a link holds it, and all of them together.
//!
//! An endpoint's subscriptions are made together and given up together: what numbers its nodes is
//! one list, and a server that has forgotten one of them has seldom kept the others. In between
//! each has its own sequence numbers, its own keep-alives and its own place in the catalog.

use super::config::Config;
use super::flow::Acknowledgements;
use super::groups::GroupId;
use super::link::Link;
use super::progress::Progress;
use super::sequence::Sequence;
use super::wire::Granted;
use bytes::Bytes;
use skerry_store::{Log, WallNanos};

#[derive(Debug, Default)]
pub(super) struct Strand {
    pub(super) group: Option<GroupId>,
    /// What there is at the server, on this connection.
    pub(super) granted: Granted,
    /// The subscription to carry on, if there is one.
    pub(super) progress: Option<Progress>,
    /// Last sign of life of the server in it, in this run or an earlier one.
    pub(super) news: Option<WallNanos>,
    /// Attempts to carry on `progress` that brought nothing; 0 once a message came.
    pub(super) unproven: u32,
    /// A message whose fetching was under way when the connection broke.
    pub(super) suspect: Option<u32>,
    /// Messages that are acknowledged once the progress behind them is on disk.
    pub(super) untold: Acknowledgements,
}

impl Strand {
    pub(super) fn new(group: Option<GroupId>, progress: Option<Progress>) -> Self {
        Self {
            group,
            news: progress.as_ref().and_then(Progress::news),
            progress,
            ..Self::default()
        }
    }

    /// Whose it is, and the server's id of it.
    pub(super) const fn at_server(&self) -> (Option<GroupId>, u32) {
        (self.group, self.granted.id)
    }

    pub(super) fn sequence(&self) -> Sequence {
        let progress = self.progress.as_ref();
        progress.map_or(Sequence::START, Progress::sequence)
    }

    /// Its subscription, where one may be carried on.
    pub(super) fn going(&self) -> Option<&Progress> {
        let progress = self.progress.as_ref();
        progress.filter(|progress| progress.subscription != 0)
    }

    /// The server has it no more, or will not let us have it.
    pub(super) fn forget(&mut self) {
        self.unproven = 0;
        self.suspect = None;
        self.untold.clear();
        if let Some(progress) = &mut self.progress {
            progress.subscription = 0;
        }
    }
}

/// All of an endpoint, as the catalog has them.
pub(super) struct Strands {
    /// At least one.
    pub(super) list: Vec<Strand>,
    /// Keys in the catalog of groups that are not there any more.
    pub(super) retired: Vec<Bytes>,
    /// The last sign of life in one of those, from where on its nodes have no values.
    pub(super) retired_news: Option<WallNanos>,
}

impl Strands {
    /// Reads the catalog; blocks.
    pub(super) fn load(log: &Log, config: &Config) -> Result<Self, skerry_store::Error> {
        let mut groups = config.groups_in_use();
        if groups.is_empty() {
            groups.insert(None);
        }
        let keys: Vec<String> = groups.iter().map(|it| config.progress_key(*it)).collect();
        let mut list = Vec::with_capacity(groups.len());
        for (group, key) in groups.into_iter().zip(&keys) {
            list.push(Strand::new(group, Progress::load(log, key)?));
        }
        let mut retired = Vec::new();
        let mut retired_news: Option<WallNanos> = None;
        for (key, progress) in Progress::retired(log, &config.name, &keys)? {
            retired.push(key);
            let Some(progress) = progress else {
                continue;
            };
            let news = progress.news();
            retired_news = retired_news.into_iter().chain(news).min();
            // Some servers let nobody delete it but the session that made it.
            let first = list.first_mut().expect("one at least");
            let noted = &mut first.progress;
            let noted = noted.get_or_insert_with(|| progress.remains());
            for unused in progress.retire(&config.endpoint) {
                noted.note_unused(unused);
            }
        }
        Ok(Self {
            list,
            retired,
            retired_news,
        })
    }
}

impl Config {
    /// Where the progress of a group is in the catalog.
    pub(super) fn progress_key(&self, group: Option<GroupId>) -> String {
        match self.group(group) {
            None => self.name.clone(),
            Some(group) => format!("{}{}", Progress::prefix(&self.name), group.name),
        }
    }
}

impl Link {
    /// The one that the server knows by this number.
    pub(super) fn strand_of_subscription(&self, subscription: u32) -> Option<usize> {
        let known = |strand: &Strand| strand.granted.id == subscription;
        self.strands.iter().position(known)
    }

    /// The one that has, or is to have, this node.
    pub(super) fn strand_of(&mut self, handle: u32) -> Option<&mut Strand> {
        let group = self.ingest.config.group_of(handle);
        let mut strands = self.strands.iter_mut();
        strands.find(|strand| strand.group == group)
    }

    /// Where what concerns the whole endpoint is kept.
    pub(super) fn first(&mut self) -> &mut Strand {
        self.strands
            .first_mut()
            .expect("something is subscribed to")
    }

    /// Whether an earlier subscription was carried on and has not brought anything yet.
    pub(super) fn is_unproven(&self) -> bool {
        self.strands.iter().any(|strand| strand.unproven > 0)
    }

    /// The group's name for people, where there are groups.
    pub(super) fn group_name(&self, group: Option<GroupId>) -> Option<&str> {
        self.ingest
            .config
            .group(group)
            .map(|group| group.name.as_str())
    }
}
