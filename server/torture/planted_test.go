//go:build planted

package torture

import (
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"carillon/server/planted"
)

// A judge that finds nothing is worth what it finds here. Each bug is found within a minute of faults, by the rule that it breaks.
func TestPlanted_ATortureFindsIt(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "carillon")
	if out, err := exec.Command("go", "build", "-tags", "planted", "-o", binary, "carillon/server/cmd/carillon").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	for bug, rule := range map[planted.Bug]string{
		planted.RemovalOnPush: "lost",
		planted.KickUnheard:   "kick",
		planted.NoSweep:       "lost",
	} {
		t.Run(string(bug), func(t *testing.T) {
			for seed := uint64(1); seed <= tries; seed++ {
				rep, err := Run(t.Context(), Config{
					Binary: binary, Length: time.Minute, Seed: seed, Dir: t.TempDir(), Env: []string{"CARILLON_PLANTED=" + string(bug)}, Say: func(s string) { t.Log(s) },
				})
				if err != nil {
					t.Fatal(err)
				}
				if slices.Contains(rules(rep.Violations), rule) {
					return
				}
				t.Logf("seed %d: %v", seed, rep)
			}
			t.Errorf("nothing is %s in %d runs", rule, tries)
		})
	}
}

// tries is how many runs may miss a bug: what is broken when depends on how fast the machine is.
const tries = 3
