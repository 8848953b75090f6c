//! Methods that only the storage of a root has: a storage of Python that an application has made. Its clients before
//! ZEO 5 learn their names and call them, through a middle, too.

use std::fs;
use std::path::Path;

use crate::middle::middle;
use crate::servers::{AnyServer, PythonServer};
use crate::support::client::{RawClient, Speaks};
use crate::support::pickle::{Value, text};
use crate::support::process::{Server, free_address};
use runzeo::internal::base::address::Address;

const STORAGE: &str = "%import own\n<ownstorage 1>\npath Data.fs\n</ownstorage>";

const COMPONENT: &str = r#"<component>
  <sectiontype name="ownstorage" datatype="own.Section" implements="ZODB.storage">
    <key name="path" required="yes"/>
  </sectiontype>
</component>
"#;

const MODULE: &str = "
from ZODB.FileStorage import FileStorage

class Storage(FileStorage):
    def getExtensionMethods(self):
        return {'describe': None, 'fail': None, 'impossible': None}
    def describe(self, *args):
        return {'args': args, 'kind': 'own'}
    def fail(self):
        raise ValueError('as asked')
    def impossible(self):
        return Storage

class Section(object):
    def __init__(self, config):
        self.config, self.name = config, config.getSectionName()
    def open(self):
        return Storage(self.config.path)
";

fn own_storage(directory: &Path) {
    fs::create_dir(directory.join("own")).expect("a directory");
    fs::write(directory.join("own/component.xml"), COMPONENT).expect("a file");
    fs::write(directory.join("own/__init__.py"), MODULE).expect("a file");
}

fn get<'v>(dict: &'v Value, key: &str) -> &'v Value {
    let Value::Dict(items) = dict else { panic!("{dict:?}") };
    items.iter().find(|(name, _)| name.bytes() == key.as_bytes()).map(|(_, value)| value).expect("the key")
}

#[test]
fn a_middle_passes_the_methods_of_its_root_on() {
    for environment in ["zodb310-py27", "zeo4-py27", "zeo4-py36"] {
        let Some(root) = PythonServer::start_any(environment, "", STORAGE, own_storage) else { continue };
        let root = AnyServer::Python(root);
        let middle = middle(&root, "");
        middle.wait_for_log("Connected to storage");
        let (mut leaf, _) = RawClient::register(middle.address, Speaks::Z4).expect("a connection");
        let mut call = |name: &str, args| leaf.call(name, args).expect("the connection stays");

        let Ok(Value::Dict(names)) = call("getExtensionMethods", vec![]) else { panic!("{environment}") };
        let mut names: Vec<_> = names.iter().map(|(name, _)| name.bytes()).collect();
        names.sort_unstable();
        assert_eq!(names, [&b"describe"[..], b"fail", b"impossible"], "{environment}");

        let answer = call("describe", vec![Value::Int(7), text("x")]).expect("a result");
        let args = get(&answer, "args").tuple();
        assert!(matches!(args[0], Value::Int(7)) && args[1].bytes() == b"x", "{environment}: {answer:?}");
        assert_eq!(get(&answer, "kind").bytes(), b"own", "{environment}");

        let (class, _) = call("fail", vec![]).expect_err("an exception");
        assert!(class.contains("ValueError"), "{environment}: {class}");
        // A class cannot be passed on; the leaf and the middle stay connected.
        call("impossible", vec![]).expect_err("an exception");
        call("describe", vec![]).expect("a result");
        assert!(middle.log().matches("Connected to storage").count() == 1, "{environment}: {}", middle.log());
    }
}

/// What such a method does is not known to the middle, so it is none for readers.
#[test]
fn a_read_only_address_has_no_such_methods() {
    let Some(root) = PythonServer::start_any("zeo4-py36", "", STORAGE, own_storage) else { return };
    let root = AnyServer::Python(root);
    let reading = free_address();
    let Address::Tcp { host: Some(host), port: Some(port) } = root.address() else { panic!("a TCP address") };
    let storage = format!("<zeoclient 1>\nserver {host}:{port}\n</zeoclient>");
    let listen = format!("<listen reading>\naddress {reading}\nread-only yes\n</listen>");
    let middle = Server::start_any("", &format!("{storage}\n{listen}"), |_| ());
    middle.wait_for_log("Connected to storage");
    let mut leaf = RawClient::connect(reading, Speaks::Z4).expect("a connection");
    leaf.call("register", vec![text("1"), Value::Bool(true)]).expect("connected").expect("registered");
    let (class, _) = leaf.call("describe", vec![]).expect("connected").expect_err("refused");
    assert!(class.contains("ReadOnlyError"), "{class}");
}
