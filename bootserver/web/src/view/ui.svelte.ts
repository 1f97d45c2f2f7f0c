// Which dialog is open. One at a time: a dialog that needs a second step shows it inside itself.

export type Open =
  | { dialog: "vm"; name: string }
  | { dialog: "create-vm" }
  | { dialog: "register-host" }
  | { dialog: "list-hosts" }
  | { dialog: "describe-host"; id: string }
  | { dialog: "create-disk" }
  | { dialog: "grow-disk"; name: string }
  | { dialog: "rollout"; name: string }
  | { dialog: "balance" };

class Ui {
  open = $state.raw<Open | null>(null);

  show(open: Open): void {
    this.open = open;
  }

  closed(): void {
    this.open = null;
  }
}

export const ui = new Ui();
