//go:build planted

package redis

import (
	"slices"
	"testing"

	"carillon/server/planted"
	"carillon/server/saver/savertest"
)

func TestPlanted_EachBugOfTasksIsFound(t *testing.T) {
	savertest.RunPlanted(t, func(t *testing.T) *savertest.Subject {
		return newFixture(t, pool.Standalone(t), 1, Config{}).subject()
	})
}

func TestPlanted_EachBugIsFoundOnRedis(t *testing.T) {
	for _, bug := range append(planted.OnRedis(), planted.AcknowledgeBeforeStore) {
		t.Run(string(bug), func(t *testing.T) {
			i := slices.IndexFunc(trials, func(tr trial) bool { return slices.Contains(tr.bugs, bug) })
			if i < 0 {
				t.Fatal("the bug has no trial")
			}
			if err := planted.Choose(bug); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = planted.Choose(planted.None) }()
			found := trials[i].run(t)
			if len(found) == 0 {
				t.Error("not found")
			}
			t.Logf("found when %s: %q", trials[i].name, found)
		})
	}
}
