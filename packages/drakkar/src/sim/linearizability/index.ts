/** A linearizability checker for histories of any origin: simulated runs, real clusters, Jepsen's files. */
export { checkLinearizability, type CheckOptions, type CheckResult, type Verdict } from './checker.ts';
export { History, type EventType, type HistoryEvent, type Operation } from './history.ts';
export { casModel, counterModel, keyValueModel, listModel, registerModel, type Model } from './models.ts';
