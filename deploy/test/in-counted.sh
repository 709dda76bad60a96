# Sourced by what runs test programs by names of tests: to the harness it is a success, too, if no test has such a name.
# shellcheck shell=bash
counted() { # counted NAME… -- COMMAND…: COMMAND… NAME…, which fails, too, unless some test passes and each name is one of a test that was run
  local names=()
  while [ "$1" != -- ]; do names+=("$1"); shift; done
  shift
  "$@" ${names[@]+"${names[@]}"} | awk -v wanted="${names[*]-}" '
    { print; fflush() }
    /^test result:/ { for (i = 3; i <= NF; i++) if ($i == "passed;") passed += $(i - 1) }
    /^test / && !/ \.\.\. ignored/ { run = run " " $2 }
    END {
      count = split(wanted, name, " ")
      for (i = 1; i <= count; i++) if (!index(run, name[i])) { print "no test is run by the name of " name[i]; exit 1 }
      if (!passed) { print "no test passed"; exit 1 }
    }'
}
