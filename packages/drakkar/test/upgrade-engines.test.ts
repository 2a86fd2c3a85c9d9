/** The same suite again, on hosts with two engines each, of which the second has the shards: all of a host's engines go together. */
import { TestCluster } from './support.ts';

TestCluster.defaultEngines = 2;
TestCluster.hasBallast = true;
await import('./scenarios/upgrade.test.ts');
