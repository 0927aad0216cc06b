//! Dependencies between the files of a crate, and circles in them.
//!
//! A path is a dependency on the file that defines its item: re-exports are followed, and are no dependencies
//! themselves. A module and its descendants may use each other: children see their parent's private items, and a file
//! that was split into children is still one unit. The root of a crate is above everything, and left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use super::source::{Import, Scope, scopes};

/// Names of the modules from the root of the crate.
type ModulePath = Vec<String>;

/// Limit on followed re-exports: longer than any real chain, and an end for circular ones.
const MAX_HOPS: usize = 12;

/// The modules of a crate, by path.
#[derive(Debug)]
pub(super) struct Crate {
    modules: BTreeMap<ModulePath, Module>,
}

#[derive(Debug)]
struct Module {
    /// Relative to the source folder of the crate.
    file: PathBuf,
    /// The module that the whole file is.
    home: ModulePath,
    scope: Scope,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Module(ModulePath),
    /// An item of this module.
    Item(ModulePath),
    /// An item of another crate.
    Outside,
}

/// The files that each file uses.
pub(super) type Uses = BTreeMap<PathBuf, BTreeSet<PathBuf>>;

impl Crate {
    /// Reads a crate from the file of its root module, by `read` (path relative to the source folder).
    pub(super) fn load(root: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Self {
        let mut krate = Self { modules: BTreeMap::new() };
        let mut todo: VecDeque<(ModulePath, PathBuf)> = VecDeque::from([(Vec::new(), root.to_owned())]);
        while let Some((path, file)) = todo.pop_front() {
            let Some(text) = read(&file) else { continue };
            for scope in scopes(&text) {
                let module: ModulePath = [path.as_slice(), scope.inline.as_slice()].concat();
                for name in scope.modules.iter().filter(|name| *name != "tests") {
                    let child: ModulePath = [module.as_slice(), std::slice::from_ref(name)].concat();
                    let file = child.iter().collect::<PathBuf>().with_extension("rs");
                    todo.push_back((child, file));
                }
                krate.modules.insert(module, Module { file: file.clone(), home: path.clone(), scope });
            }
        }
        krate
    }

    pub(super) fn files(&self) -> usize {
        self.modules.values().map(|module| &module.file).collect::<BTreeSet<_>>().len()
    }

    /// Dependencies between files, without those of and on the root.
    pub(super) fn uses(&self) -> Uses {
        let mut uses = Uses::new();
        for (path, module) in &self.modules {
            let mut targets = Vec::new();
            targets.extend(module.scope.paths.iter().filter_map(|used| self.resolve(path, used, 0)));
            for import in &module.scope.imports {
                self.imported(path, &module.scope, import, &mut targets);
            }
            for target in targets {
                if let Target::Item(used) | Target::Module(used) = target
                    && let Some(used) = self.modules.get(&used)
                    && used.file != module.file
                    && !used.home.is_empty()
                    && !module.home.is_empty()
                {
                    uses.entry(module.file.clone()).or_default().insert(used.file.clone());
                }
            }
        }
        uses
    }

    /// Dependencies through an import. Paths that begin with an imported module are resolved separately.
    fn imported(&self, path: &ModulePath, scope: &Scope, import: &Import, targets: &mut Vec<Target>) {
        let target = self.resolve(path, &import.path, 0);
        match target {
            Some(Target::Module(module)) if import.name == "*" => {
                let names = scope.names.iter().filter(|name| !scope.items.contains(*name));
                targets.extend(names.filter_map(|name| self.lookup(&module, name, 0)));
            }
            Some(Target::Item(_)) if !import.exported || scope.names.contains(&import.name) => targets.extend(target),
            _ => {}
        }
    }

    fn resolve(&self, from: &ModulePath, path: &[String], hops: usize) -> Option<Target> {
        let mut rest = path.iter();
        let mut at = match rest.next()?.as_str() {
            "crate" => Target::Module(Vec::new()),
            "self" => Target::Module(from.clone()),
            "super" => Target::Module(from.split_last()?.1.to_vec()),
            name => self.lookup(from, name, hops)?,
        };
        for name in rest {
            at = match at {
                Target::Module(module) if name == "super" => Target::Module(module.split_last()?.1.to_vec()),
                Target::Module(module) => self.lookup(&module, name, hops).unwrap_or(Target::Item(module)),
                Target::Item(_) | Target::Outside => break,
            };
        }
        Some(at)
    }

    /// Resolves a name in a module.
    fn lookup(&self, path: &ModulePath, name: &str, hops: usize) -> Option<Target> {
        if hops > MAX_HOPS {
            return None;
        }
        let child: ModulePath = path.iter().cloned().chain([name.to_owned()]).collect();
        if self.modules.contains_key(&child) {
            return Some(Target::Module(child));
        }
        let scope = &self.modules.get(path)?.scope;
        if scope.items.contains(name) {
            return Some(Target::Item(path.clone()));
        }
        if let Some(import) = scope.imports.iter().find(|import| import.name == name) {
            return Some(self.resolve(path, &import.path, hops + 1).unwrap_or(Target::Outside));
        }
        scope.imports.iter().filter(|import| import.name == "*").find_map(|import| {
            match self.resolve(path, &import.path, hops + 1) {
                Some(Target::Module(module)) if module != *path => self.lookup(&module, name, hops + 1),
                _ => None,
            }
        })
    }
}

/// Files that use each other in a circle.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Circle {
    /// All files that reach each other.
    pub(super) members: BTreeSet<PathBuf>,
    /// A shortest circle among them.
    pub(super) example: Vec<PathBuf>,
}

/// The circles. If one module is above all others of a circle, only circles among the modules below it count.
pub(super) fn circles(uses: &Uses) -> Vec<Circle> {
    let mut found = Vec::new();
    for circle in mutual(uses) {
        if circle.members.iter().any(|top| circle.members.iter().all(|file| is_above(top, file))) {
            let among = |file: &PathBuf| circle.members.contains(file);
            let below = uses.iter().filter(|(file, _)| among(file)).map(|(file, used)| {
                let unrelated = |other: &&PathBuf| !is_above(file, other) && !is_above(other, file);
                (file.clone(), used.iter().filter(|other| among(other)).filter(unrelated).cloned().collect())
            });
            found.extend(mutual(&below.collect()));
        } else {
            found.push(circle);
        }
    }
    found
}

/// Whether the first module equals the second or contains it.
fn is_above(top: &Path, file: &Path) -> bool {
    file.with_extension("").starts_with(top.with_extension(""))
}

/// Sets of files that reach each other.
fn mutual(uses: &Uses) -> Vec<Circle> {
    let reached: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> = uses.keys().map(|file| (file, reach(uses, file))).collect();
    let mut found: Vec<Circle> = Vec::new();
    for (file, others) in &reached {
        if !others.contains(file) || found.iter().any(|circle| circle.members.contains(*file)) {
            continue;
        }
        let back = |other: &&&PathBuf| reached.get(**other).is_some_and(|back| back.contains(file));
        let members: BTreeSet<PathBuf> = others.iter().filter(back).map(|other| (*other).clone()).collect();
        let example = members.iter().filter_map(|file| circle_through(uses, file)).min_by_key(Vec::len);
        found.push(Circle { members, example: example.unwrap_or_default() });
    }
    found
}

fn reach<'a>(uses: &'a Uses, from: &PathBuf) -> BTreeSet<&'a PathBuf> {
    let mut reached = BTreeSet::new();
    let mut todo: Vec<&PathBuf> = uses.get(from).into_iter().flatten().collect();
    while let Some(file) = todo.pop() {
        if reached.insert(file) {
            todo.extend(uses.get(file).into_iter().flatten());
        }
    }
    reached
}

/// The shortest path from a file back to itself.
fn circle_through(uses: &Uses, start: &PathBuf) -> Option<Vec<PathBuf>> {
    let mut todo = VecDeque::from([vec![start.clone()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = todo.pop_front() {
        for next in uses.get(way.last()?).into_iter().flatten() {
            if next == start {
                return Some(way);
            }
            if seen.insert(next.clone()) {
                todo.push_back(way.iter().cloned().chain([next.clone()]).collect());
            }
        }
    }
    None
}
