//! What one client may do.

use crate::topic::TopicFilter;

/// The rights of one connection. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Access;

impl Access {
    pub(crate) fn may_publish(&self, _topic: &str) -> bool {
        true
    }

    pub(crate) fn may_subscribe(&self, _filter: &TopicFilter) -> bool {
        true
    }

    /// Asked for each delivery: a filter may cover more than its subscriber may see.
    pub(crate) fn may_receive(&self, _topic: &str) -> bool {
        true
    }
}
