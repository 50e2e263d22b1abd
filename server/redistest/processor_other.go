//go:build !unix

package redistest

import "time"

// Processor returns 0: this system is not asked.
func Processor() time.Duration { return 0 }
