// Empties what a build makes, so that a build never ships a file whose source is gone.
import { rmSync } from 'node:fs';

for (const folder of ['packages/drakkar', 'packages/server']) {
  rmSync(`${folder}/dist`, { recursive: true, force: true });
  rmSync(`${folder}/tsconfig.tsbuildinfo`, { force: true });
}
