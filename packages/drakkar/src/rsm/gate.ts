/**
 * Counts what runs inside a state machine and takes its time, so that nothing is closed under it; and keeps it out while somebody looks at
 * the state between two updates.
 */
export class Gate {
  private running = 0;
  private holders = 0;
  private waiting: (() => void)[] | undefined;

  get isBusy(): boolean {
    return this.running > 0;
  }

  /** Nobody holds it shut. */
  get isOpen(): boolean {
    return this.holders === 0;
  }

  /** Something begins; the function that is given back ends it. */
  enter(): () => void {
    this.running++;
    let hasLeft = false;
    return () => {
      if (hasLeft) return;
      hasLeft = true;
      if (--this.running > 0) return;
      const { waiting } = this;
      if (waiting === undefined) return;
      this.waiting = undefined;
      for (const wake of waiting) wake();
    };
  }

  /** Resolves when nothing runs. */
  async quiet(): Promise<void> {
    while (this.running > 0) {
      await new Promise<void>((resolve) => {
        (this.waiting ??= []).push(resolve);
      });
    }
  }

  /** Nothing may begin from now on until the function that is given back was called. Resolves when what was under way has ended. */
  async hold(): Promise<() => void> {
    this.holders++;
    let isHeld = true;
    await this.quiet();
    return () => {
      if (isHeld) this.holders--;
      isHeld = false;
    };
  }
}
