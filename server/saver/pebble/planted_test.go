//go:build planted

package pebble

import (
	"testing"

	"carillon/server/saver/savertest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestPlanted_EachBugOfTasksIsFound(t *testing.T) {
	savertest.RunPlanted(t, func(t *testing.T) *savertest.Subject {
		return newFixture(t, vfs.NewCrashableMem(), "data").markable()
	})
}
