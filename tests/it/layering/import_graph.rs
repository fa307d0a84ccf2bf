//! A graph of the imports between the source files of a crate.
//!
//! An edge leads from the file that uses an item to the file that defines it. Paths are resolved
//! through the module tree, and re-exports are followed to the definition. The resolver knows
//! names only, not types: method calls add no edge.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use syn::{
    Attribute, File, ImplItem, Item, ItemUse, Macro, Meta, Path, Token, UseTree, Visibility,
    buffer::Cursor,
    ext::IdentExt,
    parse::ParseStream,
    punctuated::Punctuated,
    visit::{self, Visit},
};

/// The source files of a crate: the path below `src` and the text of each.
pub(super) type Sources = BTreeMap<String, String>;

/// The imports of all files that are not test code.
#[derive(Debug)]
pub(super) struct ImportGraph {
    /// Maps each file to the files that define the items it uses.
    pub(super) imports: BTreeMap<String, BTreeSet<String>>,
    /// The files that are compiled for tests only.
    pub(super) test_files: BTreeSet<String>,
}

impl ImportGraph {
    /// Parses a crate. The root of the crate is `lib.rs`.
    pub(super) fn new(sources: &Sources) -> Self {
        let mut tree = ModuleTree::default();
        tree.add_file(sources, "lib.rs".into(), None);
        let mut imports = BTreeMap::new();
        for (file, root, syntax) in &tree.files {
            let mut collector = Collector {
                tree: &tree,
                file,
                module: *root,
                child: tree.inline_children(*root),
                imported: BTreeSet::new(),
            };
            collector.visit_file(syntax);
            imports.insert(file.clone(), collector.imported);
        }
        Self { imports, test_files: tree.test_files }
    }

    /// Returns the shortest import cycle through each file that is in one, as readable chains.
    pub(super) fn cycles(&self) -> BTreeSet<String> {
        let cycles = self.imports.keys().filter_map(|file| self.shortest_cycle(file));
        cycles.map(|cycle| cycle.join(" -> ")).collect()
    }

    /// Searches breadth-first for a way from `file` back to `file`. The chain begins and ends with
    /// the file that comes first in the alphabet, so that equal cycles have equal chains.
    fn shortest_cycle(&self, file: &str) -> Option<Vec<String>> {
        let mut previous: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([file]);
        while let Some(current) = queue.pop_front() {
            for next in self.imports.get(current).into_iter().flatten() {
                if previous.contains_key(next.as_str()) {
                    continue;
                }
                previous.insert(next, current);
                queue.push_back(next);
            }
        }
        let mut cycle = vec![*previous.get_key_value(file)?.0];
        while let Some(&before) = previous.get(cycle[cycle.len() - 1]) {
            if before == file {
                break;
            }
            cycle.push(before);
        }
        cycle.reverse();
        let first = (0..cycle.len()).min_by_key(|&at| cycle[at]).unwrap();
        cycle.rotate_left(first);
        cycle.push(cycle[0]);
        Some(cycle.into_iter().map(str::to_owned).collect())
    }
}

type ModuleId = usize;

/// All modules of a crate and the names in their scopes.
#[derive(Default)]
struct ModuleTree {
    modules: Vec<Module>,
    /// All files, each with its module and its syntax tree.
    files: Vec<(String, ModuleId, File)>,
    test_files: BTreeSet<String>,
}

struct Module {
    file: String,
    parent: Option<ModuleId>,
    /// All definitions of a name: one for each namespace and each `cfg`.
    names: BTreeMap<String, Vec<Definition>>,
    globs: Vec<Vec<String>>,
    /// The modules that are written within this one, in the order of the source.
    inline: Vec<ModuleId>,
}

#[derive(Clone)]
enum Definition {
    Item,
    Module(ModuleId),
    /// A `use` declaration with this path.
    Use(Vec<String>),
}

/// The result of resolving a path: a module, or the file of an item.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Module(ModuleId),
    Item(String),
}

impl ModuleTree {
    fn add_file(&mut self, sources: &Sources, file: String, parent: Option<ModuleId>) -> ModuleId {
        let text = sources.get(&file).unwrap_or_else(|| panic!("{file} does not exist"));
        let syntax = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let module = self.add_module(file.clone(), parent);
        let folder = match file.rsplit_once('/') {
            Some((folder, "mod.rs")) => format!("{folder}/"),
            None if file == "lib.rs" => String::new(),
            _ => format!("{}/", file.trim_end_matches(".rs")),
        };
        self.add_items(sources, &folder, module, &syntax.items);
        self.files.push((file, module, syntax));
        module
    }

    fn add_module(&mut self, file: String, parent: Option<ModuleId>) -> ModuleId {
        let names = BTreeMap::new();
        self.modules.push(Module { file, parent, names, globs: Vec::new(), inline: Vec::new() });
        self.modules.len() - 1
    }

    fn add_items(&mut self, sources: &Sources, folder: &str, module: ModuleId, items: &[Item]) {
        for item in items {
            if let Item::Mod(child) = item {
                let name = child.ident.unraw().to_string();
                let id = match &child.content {
                    None => {
                        let flat = format!("{folder}{name}.rs");
                        let nested = format!("{folder}{name}/mod.rs");
                        let file = if sources.contains_key(&flat) { flat } else { nested };
                        if is_test_only(&child.attrs) {
                            self.test_files.insert(file);
                            continue;
                        }
                        self.add_file(sources, file, Some(module))
                    }
                    Some(_) if is_test_only(&child.attrs) => continue,
                    Some((_, items)) => {
                        let file = self.modules[module].file.clone();
                        let id = self.add_module(file, Some(module));
                        self.modules[module].inline.push(id);
                        self.add_items(sources, &format!("{folder}{name}/"), id, items);
                        id
                    }
                };
                self.define(module, name, Definition::Module(id));
            } else if !is_test_only(attributes(item)) {
                if let Some(name) = item_name(item) {
                    self.define(module, name, Definition::Item);
                }
                // The names of `use` declarations in function bodies are added to the scope of the
                // module. The real scope is the body. The difference can add an edge, and never
                // hides one.
                Uses { tree: self, module }.visit_item(item);
            }
        }
    }

    fn define(&mut self, module: ModuleId, name: String, definition: Definition) {
        self.modules[module].names.entry(name).or_default().push(definition);
    }

    fn inline_children(&self, module: ModuleId) -> std::vec::IntoIter<ModuleId> {
        self.modules[module].inline.clone().into_iter()
    }

    /// Returns all targets of a path in the scope of a module. A path into another crate has none.
    fn resolve(&self, module: ModuleId, path: &[String], active: &mut Active) -> BTreeSet<Target> {
        let mut targets = BTreeSet::from([Target::Module(module)]);
        for segment in path {
            let step = |target| match target {
                Target::Module(module) => self.step(module, segment, active),
                // The rest of the path is a variant or an associated item.
                item @ Target::Item(_) => BTreeSet::from([item]),
            };
            targets = targets.into_iter().flat_map(step).collect();
        }
        targets
    }

    fn step(&self, module: ModuleId, segment: &str, active: &mut Active) -> BTreeSet<Target> {
        match segment {
            "crate" => BTreeSet::from([Target::Module(0)]),
            "self" => BTreeSet::from([Target::Module(module)]),
            "super" => self.modules[module].parent.map(Target::Module).into_iter().collect(),
            name => self.look_up(module, name, active),
        }
    }

    fn look_up(&self, module: ModuleId, name: &str, active: &mut Active) -> BTreeSet<Target> {
        let Module { file, names, globs, .. } = &self.modules[module];
        let mut targets = BTreeSet::new();
        for definition in names.get(name).into_iter().flatten() {
            match definition {
                Definition::Item => targets.extend([Target::Item(file.clone())]),
                Definition::Module(id) => targets.extend([Target::Module(*id)]),
                Definition::Use(path) => {
                    let resolved =
                        active.guard(module, path, |active| self.resolve(module, path, active));
                    targets.extend(resolved);
                }
            }
        }
        if targets.is_empty() {
            for path in globs {
                let resolved = active.guard(module, path, |active| {
                    let modules = self.resolve(module, path, active);
                    let look_up = |target| match target {
                        Target::Module(module) => self.look_up(module, name, active),
                        Target::Item(_) => BTreeSet::new(),
                    };
                    modules.into_iter().flat_map(look_up).collect()
                });
                targets.extend(resolved);
            }
        }
        targets
    }
}

/// The `use` declarations that are being resolved. `use lock::lock` in a module with the child
/// `lock` would otherwise be resolved through itself, without end.
#[derive(Default)]
struct Active(Vec<(ModuleId, Vec<String>)>);

impl Active {
    fn guard(
        &mut self,
        module: ModuleId,
        path: &[String],
        resolve: impl FnOnce(&mut Self) -> BTreeSet<Target>,
    ) -> BTreeSet<Target> {
        let declaration = (module, path.to_vec());
        if self.0.contains(&declaration) {
            return BTreeSet::new();
        }
        self.0.push(declaration);
        let targets = resolve(self);
        self.0.pop();
        targets
    }
}

/// A visitor that adds the names of `use` declarations to the scope of a module.
struct Uses<'a> {
    tree: &'a mut ModuleTree,
    module: ModuleId,
}

impl Visit<'_> for Uses<'_> {
    fn visit_item_use(&mut self, item: &ItemUse) {
        if is_test_only(&item.attrs) {
            return;
        }
        for leaf in leaves(&item.tree) {
            match leaf.name {
                Some(name) => self.tree.define(self.module, name, Definition::Use(leaf.path)),
                None => self.tree.modules[self.module].globs.push(leaf.path),
            }
        }
    }
}

/// A visitor that collects the imports of one file.
struct Collector<'a> {
    tree: &'a ModuleTree,
    file: &'a str,
    module: ModuleId,
    /// The inline modules of the current module that are still to be visited.
    child: std::vec::IntoIter<ModuleId>,
    imported: BTreeSet<String>,
}

impl Collector<'_> {
    fn add(&mut self, path: &[String]) {
        // A module by itself adds no edge: the paths that go through it do.
        for target in self.tree.resolve(self.module, path, &mut Active::default()) {
            if let Target::Item(file) = target
                && file != self.file
            {
                self.imported.insert(file);
            }
        }
    }

    /// Adds the paths with two or more segments in the tokens of a macro call.
    fn add_tokens<'c>(&mut self, mut cursor: Cursor<'c>) -> Cursor<'c> {
        loop {
            if let Some((ident, mut next)) = cursor.ident() {
                let mut path = vec![ident.unraw().to_string()];
                while let Some((segment, after)) = path_separator(next).and_then(Cursor::ident) {
                    path.push(segment.unraw().to_string());
                    next = after;
                }
                if path.len() > 1 {
                    self.add(&path);
                }
                cursor = next;
            } else if let Some((group, _, _, next)) = cursor.any_group() {
                self.add_tokens(group);
                cursor = next;
            } else if let Some((_, next)) = cursor.token_tree() {
                cursor = next;
            } else {
                return cursor;
            }
        }
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test_only(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let Some((_, items)) = &item.content else { return };
        let module = self.child.next().expect("the module tree has all inline modules");
        let child = self.tree.inline_children(module);
        let outer = (self.module, std::mem::replace(&mut self.child, child));
        self.module = module;
        for item in items {
            self.visit_item(item);
        }
        (self.module, self.child) = outer;
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_module_root = self.file == "lib.rs" || self.file.ends_with("mod.rs");
        if is_module_root && !matches!(item.vis, Visibility::Inherited) {
            return; // a re-export
        }
        for leaf in leaves(&item.tree) {
            self.add(&leaf.path);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            _ => return,
        };
        if !is_test_only(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        if path.leading_colon.is_none() {
            let segments = path.segments.iter().map(|segment| segment.ident.unraw().to_string());
            self.add(&segments.collect::<Vec<_>>());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        let add = |input: ParseStream<'_>| input.step(|cursor| Ok(((), self.add_tokens(*cursor))));
        call.parse_body_with(add).unwrap();
    }

    /// Attributes name no items of the crate.
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

/// Returns the cursor behind `::`.
fn path_separator(cursor: Cursor<'_>) -> Option<Cursor<'_>> {
    let (first, next) = cursor.punct()?;
    let (second, next) = next.punct()?;
    (first.as_char() == ':' && second.as_char() == ':').then_some(next)
}

/// One path of a `use` declaration.
struct Leaf {
    path: Vec<String>,
    /// The imported name, or `None` for a glob.
    name: Option<String>,
}

fn leaves(tree: &UseTree) -> Vec<Leaf> {
    let with_prefix = |prefix: String, mut leaf: Leaf| {
        leaf.path.insert(0, prefix);
        leaf
    };
    match tree {
        UseTree::Path(path) => {
            let prefix = path.ident.unraw().to_string();
            let mut leaves = leaves(&path.tree);
            for leaf in &mut leaves {
                // `use a::{self}` imports the name `a`.
                if leaf.path == ["self"] && leaf.name.as_deref() == Some("self") {
                    leaf.name = Some(prefix.clone());
                }
            }
            leaves.into_iter().map(|leaf| with_prefix(prefix.clone(), leaf)).collect()
        }
        UseTree::Name(name) => {
            let name = name.ident.unraw().to_string();
            vec![Leaf { path: vec![name.clone()], name: Some(name) }]
        }
        UseTree::Rename(rename) => {
            let name = Some(rename.rename.unraw().to_string());
            vec![Leaf { path: vec![rename.ident.unraw().to_string()], name }]
        }
        UseTree::Glob(_) => vec![Leaf { path: Vec::new(), name: None }],
        UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
    }
}

/// Returns the name that an item defines in the scope of its module.
fn item_name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.unraw().to_string())
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Returns true if an item has a `cfg` that holds in test builds only, such as `cfg(test)` and
/// `cfg(all(test, ..))`.
fn is_test_only(attributes: &[Attribute]) -> bool {
    let cfgs = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    cfgs.map(|cfg| cfg.parse_args::<Meta>().unwrap()).any(|condition| requires_test(&condition))
}

fn requires_test(condition: &Meta) -> bool {
    let Meta::List(list) = condition else { return condition.path().is_ident("test") };
    let parse = Punctuated::<Meta, Token![,]>::parse_terminated;
    let nested = list.parse_args_with(parse).unwrap();
    if list.path.is_ident("all") {
        nested.iter().any(requires_test)
    } else {
        list.path.is_ident("any") && nested.iter().all(requires_test)
    }
}
