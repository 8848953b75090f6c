//! What the log says of conflicts that a `conflict-resolver` might have merged.
//!
//! Whether a class has a `_p_resolveConflict` cannot be known without Python; few classes have one. The first class
//! that may have one is logged at INFO, each further class at BLATHER. Known classes are not logged: the classes merged
//! here, whose conflict is real, and classes of packages in which no class has the method.

use std::collections::HashSet;

use super::LOG;
use super::native::is_built_in;
use crate::base::sync::{Mutex, rank};
use crate::base::untrusted::Untrusted;
use crate::pickle::record::ClassName;

/// Upper bound on the classes that are remembered as logged.
const CLASSES_MAX: usize = 1000;

/// Packages without a `_p_resolveConflict`, except for the BTrees classes that are merged here. From the sources of
/// ZODB 3.8 to 6, Zope 4 to 6 and CMFCore 3.
const PACKAGES_WITHOUT: &[&str] = &[
    "AccessControl",
    "App",
    "BTrees",
    "OFS",
    "Products.CMFCore",
    "Products.ExternalMethod",
    "Products.PageTemplates",
    "Products.PluginIndexes",
    "Products.PythonScripts",
    "Products.SiteErrorLog",
    "Products.ZCTextIndex",
    "Products.ZCatalog",
    "ZODB.blob",
    "persistent",
    "zope.annotation",
    "zope.component",
    "zope.container",
    "zope.site",
];

/// The classes that were logged.
#[derive(Default)]
pub struct Advice(Mutex<HashSet<String>, rank::Advice>);

/// The level at which a class is logged.
#[derive(Debug, Eq, PartialEq)]
enum Line {
    First,
    Further,
}

impl Advice {
    /// A conflict on an object of `class` (`module.name`) was not merged.
    pub fn give(&self, class: &ClassName) {
        match self.line(class.as_str()) {
            Some(Line::First) => log::info!(
                target: LOG,
                "A conflict on an object of class {class} is left to the client, which tries again. Whether the class could \
                 merge it (_p_resolveConflict) is not known without Python: 'conflict-resolver' in <zeo> can name a Python \
                 that has the application's classes. Further classes are logged at level BLATHER"
            ),
            Some(Line::Further) => crate::blather!(
                target: LOG,
                "A conflict on an object of class {class} is left to the client (logged once for each class)"
            ),
            None => {}
        }
    }

    fn line(&self, class: &str) -> Option<Line> {
        if is_built_in(class) || has_none(class) {
            return None;
        }
        let mut logged = self.0.lock();
        let is_first = logged.is_empty();
        if logged.len() >= CLASSES_MAX || !logged.insert(Untrusted(class).to_string()) {
            return None;
        }
        Some(if is_first { Line::First } else { Line::Further })
    }
}

/// Whether the class is known to have no `_p_resolveConflict`.
fn has_none(class: &str) -> bool {
    PACKAGES_WITHOUT
        .iter()
        .any(|package| class.strip_prefix(package).is_some_and(|rest| rest.starts_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log advised every Plone to configure a Python for conflicts of `BTrees.IOBTree.IOBucket`, which is merged
    /// here, and of classes that have no `_p_resolveConflict`.
    #[test]
    fn only_classes_that_may_merge_are_logged() {
        let advice = Advice::default();
        for class in [
            "BTrees.IOBTree.IOBucket",
            "BTrees._OOBTree.OOBTree",
            "BTrees.Length.Length",
            "BTrees.Unheard.Of",
            "persistent.mapping.PersistentMapping",
            "persistent.list.PersistentList",
            "persistent.dict.PersistentDict",
            "OFS.Folder.Folder",
            "Products.ZCatalog.Catalog.Catalog",
        ] {
            assert_eq!(advice.line(class), None, "{class}");
        }
        assert_eq!(advice.line("shop.stock.Shelf"), Some(Line::First));
        assert_eq!(advice.line("shop.stock.Shelf"), None);
        assert_eq!(advice.line("zc.queue._queue.Queue"), Some(Line::Further));
        assert_eq!(advice.line("persistentlike.Thing"), Some(Line::Further));
        for n in 0..2 * CLASSES_MAX {
            advice.line(&format!("m.C{n}"));
        }
        assert_eq!(advice.line("m.Other"), None, "the memory is limited");
    }
}
