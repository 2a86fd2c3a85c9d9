// Runs before start, demo, bench and test. Plain JavaScript for old Nodes: its one job is to say clearly what is missing.
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 22 || (major === 22 && minor < 19)) {
  console.error(
    `This needs Node 22.19 or newer; ${process.version} runs it. "npm ci" installs a Node 24 beside the project where the ` +
      'registry has one for your platform (do not leave out optional dependencies); elsewhere, install a newer Node.',
  );
  process.exit(1);
}
