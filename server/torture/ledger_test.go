package torture

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"carillon/server/history"
)

const emptyLedger = "# Ledger\n\n" + sumBegins + sumEnds + "\n| day | and so on |\n| --- | --- |\n"

// day is that of all rows here.
var day = time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)

func TestSum_AddsUpRowsAndKeepsThoseApartThatMayLose(t *testing.T) {
	frequent := map[string]int{"kill -9 of a room": 30, "kill -9 of a primary, failover": 4}
	ledger := emptyLedger
	for _, r := range []Report{
		{Form: Sentinel, Durability: Replicated, Took: 90 * time.Second, Accepted: 1_000_000, Faults: frequent},
		{Form: Standalone, Durability: Process, Took: 30 * time.Second, Accepted: 2_000_000, Faults: map[string]int{"kill -9 of Redis": 20}, Violations: make([]history.Violation, 2)},
		{Form: Cluster, Durability: Process, Took: time.Minute, Accepted: 500, Faults: frequent, Lost: 7},
	} {
		ledger += r.Row(day, "abc")
	}
	ledger += "| 2026-11-26 | abc | embedded, process | 1 | 1m0s | 30 | 5 | 0 | 0 | |\n" // from before kinds were noted
	got, err := Sum(ledger)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| must not be lost | 3 | 3m0s | 3000030 | 59 | 0 | 2 | fewer than one in 1000010 |\n",
		"| may be, on a failover | 1 | 1m0s | 500 | 34 | 7 | 0 |  |\n",
		"Faults by kind: 60 kill -9 of a room; 20 kill -9 of Redis; 8 kill -9 of a primary, failover. The kinds of 5 more were not noted.\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	_, few, _ := strings.Cut(got, "Fewer than 20 times: ")
	few, _, _ = strings.Cut(few, ".\n")
	for kind, want := range map[string]bool{"kill -9 of a room": false, "kill -9 of Redis": false, "kill -9 of a primary, failover": true, wipes: true, "kill -9 of the node": true} {
		if got := strings.Contains("; "+few+";", "; "+kind+";"); got != want {
			t.Errorf("%q among those that are few is %v: %s", kind, got, few)
		}
	}
	again, err := Sum(got)
	if err != nil || again != got {
		t.Errorf("a second time it is another, %v:\n%s", err, again)
	}
	if _, rows, _ := strings.Cut(got, sumEnds); !strings.HasSuffix(ledger, rows) {
		t.Errorf("the rows are not what they were:\n%s", rows)
	}
}

func TestSum_NamesTheLineThatItCannotRead(t *testing.T) {
	for _, row := range []string{
		"| 2026-11-27 | abc | embedded, process | 1 | 1m0s | 30 | 5 | 0 | 0 |",
		"| 2026-11-27 | abc | tape, process | 1 | 1m0s | 30 | 5 | 0 | 0 | |",
		"| 2026-11-27 | abc | embedded | 1 | 1m0s | 30 | 5 | 0 | 0 | |",
		"| 2026-11-27 | abc | embedded, process | 1 | long | 30 | 5 | 0 | 0 | |",
		"| 2026-11-27 | abc | embedded, process | 1 | 1m0s | many | 5 | 0 | 0 | |",
		"| 2026-11-27 | abc | embedded, process | 1 | 1m0s | 30 | 5 | -1 | 0 | |",
		"| 2026-11-27 | abc | embedded, process | 1 | 1m0s | 30 | 5 | 0 | 0 | 4 wipes |",
		"| 2026-11-27 | abc | embedded, process | 1 | 1m0s | 30 | 5 | 0 | 0 | wipes |",
	} {
		if got, err := Sum(emptyLedger + row + "\n"); err == nil || !strings.Contains(err.Error(), "line 8 ") {
			t.Errorf("%s: %v\n%s", row, err, got)
		}
	}
	if _, err := Sum("# Ledger\n"); err == nil {
		t.Error("a ledger without a place for its sum has one")
	}
}

// The ledger of the project says what its rows come to.
func TestSum_OfTheLedgerIsWrittenThere(t *testing.T) {
	text, err := os.ReadFile("../../docs/reliability-ledger.md")
	if errors.Is(err, os.ErrNotExist) {
		t.Fatal("it has moved")
	}
	got, err := Sum(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if got != string(text) {
		t.Errorf("go run ./server/cmd/torture -sum docs/reliability-ledger.md writes\n%s", got)
	}
}
